// Small model files for the tests of server/model: see model_files.h.
#include "tests/server/model/model_files.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "server/model/tensor_table.h"

namespace structattn {
namespace {

enum GgufTypeNumber : uint32_t {
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9
};

std::string Utf8(uint32_t code_point) {  // Below U+0800.
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 63))};
}

int64_t Elements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string Encode(float value, std::string_view dtype) {
  if (dtype == "BF16") return BytesOf(FromFloat<Bfloat16>(value).bits);
  if (dtype == "F16") return BytesOf(FromFloat<Float16>(value).bits);
  return BytesOf(value);
}

}  // namespace

TempDirectory::TempDirectory() {
  std::string name = std::filesystem::temp_directory_path() / "structattn-test-XXXXXX";
  STRUCTATTN_CHECK(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDirectory::Write(std::string_view name, std::string_view contents) const {
  std::ofstream file(Path(name), std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  file.close();
  STRUCTATTN_CHECK(file.good());
  return Path(name);
}

std::string SafetensorsFrom(std::string_view header, std::string_view data) {
  return BytesOf(uint64_t{header.size()}).append(header).append(data);
}

nlohmann::json SafetensorsHeader(const std::vector<FileTensor>& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t offset = 0;
  for (const FileTensor& tensor : tensors) {
    const size_t end = offset + tensor.bytes.size();
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  return header;
}

std::string SafetensorsBytes(const std::vector<FileTensor>& tensors) {
  std::string header = SafetensorsHeader(tensors).dump();
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string data;
  for (const FileTensor& tensor : tensors) data += tensor.bytes;
  return SafetensorsFrom(header, data);
}

float TinyValue(std::string_view name, int64_t index) {
  const auto seed = static_cast<int64_t>(std::hash<std::string_view>()(name) % 1000);
  return static_cast<float>((index * 7 + index / 61 + seed) % 61 - 30);
}

std::string TinyBytes(std::string_view name, std::string_view dtype, int64_t count) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes += Encode(TinyValue(name, i), dtype);
  return bytes;
}

nlohmann::json TinyConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 272},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"eos_token_id", 256},
          {"torch_dtype", "float32"}};
}

// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and up.
std::vector<std::string> TinyTokens() {
  std::vector<std::string> tokens;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    tokens.push_back(Utf8(plain ? byte : next++));
  }
  tokens.push_back("<|endoftext|>");
  return tokens;
}

std::string TinyTokenizer() {
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", true}};
  nlohmann::json vocabulary;
  const std::vector<std::string> tokens = TinyTokens();
  for (size_t i = 0; i < tokens.size(); ++i) vocabulary[tokens[i]] = i;
  const nlohmann::json end = {
      {"id", 256},       {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},        {"special", true}};
  const nlohmann::json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", nullptr},
                                {"end_of_word_suffix", nullptr},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"ignore_merges", false},
                                {"vocab", vocabulary},
                                {"merges", nlohmann::json::array()}};
  return nlohmann::json({{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", nlohmann::json::array({end})},
                         {"normalizer", nullptr},
                         {"pre_tokenizer", byte_level},
                         {"post_processor", nullptr},
                         {"decoder", byte_level},
                         {"model", model}})
      .dump();
}

std::vector<FileTensor> TinyTensors(const ModelConfig& config, std::string_view dtype) {
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    std::vector<int64_t> shape = {spec.rows, spec.columns};
    if (spec.rows == 1) shape = {spec.columns};
    tensors.push_back({spec.name, std::string(dtype), shape,
                       TinyBytes(spec.name, dtype, spec.rows * spec.columns)});
  }
  return tensors;
}

void WriteTinyModel(const TempDirectory& directory) {
  const std::string config = TinyConfig().dump();
  directory.Write("config.json", config);
  directory.Write("tokenizer.json", TinyTokenizer());
  directory.Write("model.safetensors",
                  SafetensorsBytes(TinyTensors(*ParseModelConfig(config, ""), "F32")));
}

std::string GgufString(std::string_view text) {
  return BytesOf(uint64_t{text.size()}).append(text);
}

void GgufWriter::Value(std::string_view key, uint32_t type, std::string_view bytes) {
  RemoveKey(key);
  keys_.push_back({std::string(key), type, std::string(bytes)});
}

void GgufWriter::RemoveKey(std::string_view key) {
  std::erase_if(keys_, [key](const Key& other) { return other.name == key; });
}

void GgufWriter::Text(std::string_view key, std::string_view value) {
  Value(key, kString, GgufString(value));
}

void GgufWriter::Uint32(std::string_view key, uint32_t value) {
  Value(key, kUint32, BytesOf(value));
}

void GgufWriter::Float32(std::string_view key, float value) {
  Value(key, kFloat32, BytesOf(value));
}

void GgufWriter::Bool(std::string_view key, bool value) { Value(key, kBool, BytesOf(value)); }

void GgufWriter::Strings(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = BytesOf<uint32_t>(kString) + BytesOf(uint64_t{values.size()});
  for (const std::string& value : values) bytes += GgufString(value);
  Value(key, kArray, bytes);
}

void GgufWriter::Int32s(std::string_view key, const std::vector<int32_t>& values) {
  std::string bytes = BytesOf<uint32_t>(kInt32) + BytesOf(uint64_t{values.size()});
  for (const int32_t value : values) bytes += BytesOf(value);
  Value(key, kArray, bytes);
}

GgufWriter::Tensor& GgufWriter::Find(std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [name](const Tensor& tensor) { return tensor.name == name; });
  STRUCTATTN_CHECK(found != tensors.end());
  return *found;
}

void GgufWriter::RemoveTensor(std::string_view name) {
  std::erase_if(tensors, [name](const Tensor& tensor) { return tensor.name == name; });
}

std::string GgufWriter::Bytes() const {
  uint64_t listed = 0;
  for (const Tensor& tensor : tensors) listed += static_cast<uint64_t>(tensor.repeat);
  std::string file = magic + BytesOf(version);
  file += BytesOf(listed + static_cast<uint64_t>(extra_tensors));
  file += BytesOf(keys_.size() + static_cast<uint64_t>(extra_keys));
  for (const Key& key : keys_) file += GgufString(key.name) + BytesOf(key.type) + key.bytes;
  const auto pad = [this](std::string& bytes) {
    bytes.append((alignment - bytes.size() % alignment) % alignment, '\0');
  };
  std::string data;
  for (const Tensor& tensor : tensors) {
    for (int i = 0; i < tensor.repeat; ++i) {
      file += GgufString(tensor.name) + BytesOf(static_cast<uint32_t>(tensor.dimensions.size()));
      for (const uint64_t size : tensor.dimensions) file += BytesOf(size);
      file += BytesOf(tensor.type);
      file += BytesOf(data.size() + static_cast<uint64_t>(tensor.offset_shift));
    }
    data += tensor.bytes;
    pad(data);
  }
  pad(file);
  return file + data;
}

namespace {

void AddTinyMetadata(GgufWriter& writer) {
  writer.Text("general.architecture", "llama");
  writer.Uint32("llama.block_count", 2);
  writer.Uint32("llama.embedding_length", 32);
  writer.Uint32("llama.feed_forward_length", 48);
  writer.Uint32("llama.context_length", 64);
  writer.Uint32("llama.attention.head_count", 2);
  writer.Uint32("llama.attention.head_count_kv", 1);
  writer.Float32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.Text("tokenizer.ggml.model", "gpt2");
  writer.Text("tokenizer.ggml.pre", "gpt-2");
  writer.Strings("tokenizer.ggml.tokens", TinyTokens());
  std::vector<int32_t> types(257, 1);
  types[256] = 3;
  writer.Int32s("tokenizer.ggml.token_type", types);
  writer.Strings("tokenizer.ggml.merges", {});
  writer.Uint32("tokenizer.ggml.eos_token_id", 256);
  writer.Bool("tokenizer.ggml.add_bos_token", false);
}

// The conversion scripts' permutation of q and k, on rows of `columns` values: each head's two
// halves become pairs.
std::vector<float> Permute(const std::vector<float>& values, int64_t heads, int64_t columns) {
  const auto rows = static_cast<int64_t>(values.size()) / columns;
  const int64_t half = rows / heads / 2;
  std::vector<float> permuted;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < half; ++i) {
      for (int64_t side = 0; side < 2; ++side) {
        const int64_t row = (head * 2 + side) * half + i;
        for (int64_t c = 0; c < columns; ++c) {
          permuted.push_back(values[static_cast<size_t>(row * columns + c)]);
        }
      }
    }
  }
  return permuted;
}

}  // namespace

GgufWriter TinyGguf() {
  static const std::map<std::string_view, std::string_view> kNames = {
      {"embed_tokens", "token_embd"}, {"norm", "output_norm"},
      {"lm_head", "output"},          {"input_layernorm", "attn_norm"},
      {"q_proj", "attn_q"},           {"k_proj", "attn_k"},
      {"v_proj", "attn_v"},           {"o_proj", "attn_output"},
      {"gate_proj", "ffn_gate"},      {"up_proj", "ffn_up"},
      {"down_proj", "ffn_down"},      {"post_attention_layernorm", "ffn_norm"},
  };
  GgufWriter writer;
  AddTinyMetadata(writer);
  for (const FileTensor& tensor : TinyTensors(*ParseModelConfig(TinyConfig().dump(), ""), "F32")) {
    const std::string stem = tensor.name.substr(0, tensor.name.rfind('.'));
    std::string name(kNames.at(std::string_view(stem).substr(stem.rfind('.') + 1)));
    if (stem.starts_with("model.layers.")) name = "blk." + stem.substr(13, 1) + "." + name;
    std::string bytes = tensor.bytes;
    if (name.ends_with("attn_q") || name.ends_with("attn_k")) {
      std::vector<float> values(static_cast<size_t>(Elements(tensor.shape)));
      std::memcpy(values.data(), bytes.data(), bytes.size());
      values = Permute(values, tensor.shape[0] / 16, tensor.shape[1]);
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    const std::vector<uint64_t> dimensions(tensor.shape.rbegin(), tensor.shape.rend());
    writer.tensors.push_back({name + ".weight", dimensions, 0, bytes});
  }
  return writer;
}

}  // namespace structattn
