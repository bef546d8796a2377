// GGUF files as checkpoints: names, row order, encodings, config; and broken files, refused quickly
// with file, tensor and reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Checkpoint> OpenWritten(const TempDirectory& directory, const GgufWriter& writer) {
  auto checkpoint = Checkpoint::Open(directory.Write("model.gguf", writer.Bytes()));
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

std::vector<float> Floats(const LoadedMatrix& matrix) {
  EXPECT_EQ(matrix.view.dtype, DType::kFloat32);
  const auto* data = static_cast<const float*>(matrix.view.data);
  return {data, data + matrix.view.rows * matrix.view.columns};
}

TEST(GgufCheckpointTest, ReadsTheTinyModelInHuggingFacesOrder) {
  const TempDirectory directory;
  const auto checkpoint = OpenWritten(directory, TinyGguf());
  ASSERT_NE(checkpoint, nullptr);
  const ModelConfig& config = checkpoint->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 272);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.kv_heads, 1);
  EXPECT_EQ(config.context_length, 64);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.dtype, DType::kFloat32);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(256));
  EXPECT_EQ(checkpoint->digest().size(), 64u);
  EXPECT_NE(checkpoint->TakeTokenizer(), nullptr);
  ThreadPool pool(2);
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    const std::vector<float> values = Floats(checkpoint->Read(spec.name));
    ASSERT_EQ(static_cast<int64_t>(values.size()), spec.rows * spec.columns) << spec.name;
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], TinyValue(spec.name, static_cast<int64_t>(i))) << spec.name << " " << i;
    }
    EXPECT_EQ(Floats(checkpoint->Read(spec.name, &pool)), values);
  }
}

TEST(GgufCheckpointTest, PermutesBiasesWithTheirMatrices) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  for (const char layer : {'0', '1'}) {
    for (const auto& [name, size] : {std::pair{"q", 32}, {"k", 16}, {"v", 16}}) {
      std::string bytes;
      for (int i = 0; i < size; ++i) bytes += BytesOf(static_cast<float>(i));
      writer.tensors.push_back({std::string("blk.") + layer + ".attn_" + name + ".bias",
                                {static_cast<uint64_t>(size)},
                                0,
                                bytes});
    }
  }
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->config().qkv_bias);
  EXPECT_THAT(Floats(checkpoint->Read("model.layers.1.self_attn.k_proj.bias")),
              ElementsAre(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  const std::vector<float> v = Floats(checkpoint->Read("model.layers.1.self_attn.v_proj.bias"));
  EXPECT_EQ(v[1], 1.0f);
}

TEST(GgufCheckpointTest, QwenIsNotPermuted) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  writer.Text("general.architecture", "qwen3");
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length",
                          "context_length", "attention.head_count", "attention.head_count_kv"}) {
    const std::map<std::string, uint32_t> values = {
        {"block_count", 2},     {"embedding_length", 32},    {"feed_forward_length", 48},
        {"context_length", 64}, {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
    writer.Uint32(std::string("qwen3.") + key, values.at(key));
  }
  writer.Float32("qwen3.attention.layer_norm_rms_epsilon", 1e-6f);
  writer.Float32("qwen3.rope.freq_base", 1e6f);
  for (const char layer : {'0', '1'}) {
    for (const char* name : {".attn_q_norm.weight", ".attn_k_norm.weight"}) {
      writer.tensors.push_back({std::string("blk.") + layer + name, {16}, 0, std::string(64, 0)});
    }
  }
  const std::string stored = writer.Find("blk.0.attn_q.weight").bytes;
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->config().qk_norm);
  EXPECT_EQ(checkpoint->config().rope.theta, 1e6);
  const LoadedMatrix q = checkpoint->Read("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(std::memcmp(q.view.data, stored.data(), stored.size()), 0);
}

// Q8_0 quant blocks of scale 2^-3: every value is its byte / 8.
TEST(GgufCheckpointTest, ExpandsQuantisedMatricesAndUndoesTheirPermutation) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  auto& q = writer.Find("blk.0.attn_q.weight");
  q.type = 8;
  q.bytes.clear();
  for (int row = 0; row < 32; ++row) {
    q.bytes += BytesOf(uint16_t{0x3000});
    for (int c = 0; c < 32; ++c) q.bytes += static_cast<char>(row + c);
  }
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_EQ(checkpoint->config().dtype, DType::kBfloat16);
  const auto values = Floats(checkpoint->Read("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_EQ(values[0], 0.0f);
  EXPECT_EQ(values[32 * 1 + 5], (2 + 5) / 8.0f) << "row 1 is the second pair's first";
  EXPECT_EQ(values[32 * 8], 1 / 8.0f) << "row 8 is the first pair's second";
  EXPECT_EQ(values[32 * 16 + 1], (16 + 1) / 8.0f) << "head 1 begins where it began";

  // The quant blocks themselves come in the same order, and mean the same values.
  ThreadPool pool(1);
  const auto quantized = checkpoint->ReadQuantized("model.layers.0.self_attn.q_proj.weight", pool);
  ASSERT_TRUE(quantized.has_value());
  EXPECT_EQ(quantized->view.format, QuantFormat::kQ8_0);
  EXPECT_EQ(quantized->view.rows, 32);
  EXPECT_EQ(quantized->view.columns, 32);
  for (int row = 0; row < 32; ++row) {
    float expanded[32];
    Dequantize(QuantFormat::kQ8_0,
               static_cast<const char*>(quantized->view.data) + row * quantized->view.row_bytes(),
               1, expanded);
    for (int c = 0; c < 32; ++c) EXPECT_EQ(expanded[c], values[32 * row + c]) << row << ", " << c;
  }
  EXPECT_FALSE(
      checkpoint->ReadQuantized("model.layers.0.self_attn.k_proj.weight", pool).has_value());
}

TEST(GgufCheckpointTest, KeepsHalfPrecisionAsItIs) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  auto& embedding = writer.Find("token_embd.weight");
  embedding.type = 1;
  embedding.bytes = TinyBytes("model.embed_tokens.weight", "F16", 272 * 32);
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_EQ(checkpoint->config().dtype, DType::kFloat16);
  const LoadedMatrix matrix = checkpoint->Read("model.embed_tokens.weight");
  EXPECT_EQ(matrix.view.dtype, DType::kFloat16);
  EXPECT_EQ(matrix.owned, nullptr) << "no conversion, no copy";
}

TEST(GgufCheckpointTest, TiesAndScales) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  writer.RemoveTensor("output.weight");
  std::string divisors;
  for (const float value : {1, 1, 1, 1, 2, 4, 8, 8}) divisors += BytesOf(value);
  writer.tensors.push_back({"rope_freqs.weight", {8}, 0, divisors});
  writer.Uint32("tokenizer.ggml.eot_token_id", 255);
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->config().tied_embeddings);
  EXPECT_THAT(checkpoint->config().rope.frequency_divisors, ElementsAre(1, 1, 1, 1, 2, 4, 8, 8));
  EXPECT_THAT(checkpoint->config().eos_token_ids, ElementsAre(256, 255));
}

TEST(GgufCheckpointTest, ReadsRopeScalingsAndWindows) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  writer.Text("llama.rope.scaling.type", "yarn");
  writer.Float32("llama.rope.scaling.factor", 4.0f);
  writer.Uint32("llama.rope.scaling.original_context_length", 32);
  writer.Uint32("llama.attention.sliding_window", 20);
  const ModelConfig yarn = OpenWritten(directory, writer)->config();
  const auto& scaling = std::get<YarnRopeScaling>(yarn.rope.scaling);
  EXPECT_EQ(scaling.factor, 4.0);
  EXPECT_EQ(scaling.original_max_position_embeddings, 32.0);
  EXPECT_NEAR(scaling.attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  EXPECT_EQ(yarn.context_length, 128);
  EXPECT_EQ(yarn.sliding_window, 20);
  EXPECT_TRUE(yarn.HasWindow(1));

  writer = TinyGguf();
  writer.Float32("llama.rope.scale_linear", 2.0f);
  writer.Uint32("llama.attention.sliding_window", 1000);
  const ModelConfig linear = OpenWritten(directory, writer)->config();
  EXPECT_EQ(std::get<LinearRopeScaling>(linear.rope.scaling).factor, 2.0);
  EXPECT_EQ(linear.sliding_window, kNoWindow);

  writer.Text("llama.rope.scaling.type", "none");
  EXPECT_TRUE(
      std::holds_alternative<DefaultRope>(OpenWritten(directory, writer)->config().rope.scaling));
}

// The published Qwen and Llama-3 folders end at more ids than eos_token_id of their GGUF files.
TEST(GgufCheckpointTest, EndsAtTheIdsOfTheMetadataAndAtControlTokensOfKnownNames) {
  const TempDirectory directory;
  GgufWriter writer = TinyGguf();
  std::vector<std::string> tokens = TinyTokens();
  std::vector<int32_t> types(tokens.size(), 1);
  const auto add = [&](std::string_view token, int32_t type) {
    tokens.emplace_back(token);
    types.push_back(type);
  };
  types[256] = 3;  // <|endoftext|>
  add("<|im_end|>", 3);
  add("<|eot_id|>", 3);
  add("<|fim_pad|>", 3);
  add("</s>", 4);
  add("<|im_start|>", 3);
  writer.Strings("tokenizer.ggml.tokens", tokens);
  writer.Int32s("tokenizer.ggml.token_type", types);
  writer.Uint32("tokenizer.ggml.eos_token_id", 257);
  writer.Uint32("tokenizer.ggml.eom_token_id", 10);
  writer.Uint32("tokenizer.ggml.eot_token_id", 0xffffffff);  // -1
  writer.Uint32("tokenizer.ggml.fim_pad_token_id", 259);
  const auto checkpoint = OpenWritten(directory, writer);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_THAT(checkpoint->config().eos_token_ids, ElementsAre(257, 10, 256, 258));
  EXPECT_THAT(checkpoint->config().warnings,
              ElementsAre("tokenizer.ggml.eot_token_id 4294967295 is ignored: the model emits the "
                          "ids 0 to 271"));
}

TEST(GgufCheckpointTest, RefusesBrokenFiles) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::string eps = "llama.attention.layer_norm_rms_epsilon";
  struct Case {
    std::function<void(GgufWriter&)> change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& w) { w.Text("general.architecture", "gemma"); },
       "general.architecture 'gemma': supported are llama, qwen2, qwen3"},
      {[](auto& w) { w.RemoveKey("general.architecture"); }, "'general.architecture' is missing"},
      {[](auto& w) { w.RemoveKey("llama.block_count"); }, "'llama.block_count' is missing"},
      {[](auto& w) { w.Text("llama.block_count", "2"); }, "'llama.block_count' is not an integer"},
      {[](auto& w) { w.Uint32("llama.block_count", 3); }, "'blk.2.attn_norm.weight': tensor is"},
      {[](auto& w) { w.Uint32("llama.block_count", 4000000000u); }, "num_hidden_layers 4000000000"},
      {[](auto& w) { w.Uint32("llama.attention.head_count", 0); }, "num_attention_heads 0"},
      {[](auto& w) { w.Uint32("llama.attention.key_length", 25); }, "head_dim 25: allowed"},
      {[](auto& w) { w.Uint32("llama.attention.value_length", 32); }, "is 32: supported is 16"},
      {[](auto& w) { w.Uint32("llama.rope.dimension_count", 8); }, "'llama.rope.dimension_count'"},
      {[=](auto& w) { w.Float32(eps, nan); }, "rms_norm_eps nan: allowed"},
      {[=](auto& w) { w.Float32("llama.rope.freq_base", nan); }, "rope_theta nan: allowed"},
      {[](auto& w) { w.Text("llama.rope.scaling.type", "longrope"); },
       "rope.scaling.type 'longrope': supported are none, linear, yarn"},
      {[=](auto& w) { w.Float32("llama.rope.scaling.factor", nan); }, "rope factor nan: allowed"},
      {[](auto& w) { w.Uint32("llama.expert_count", 8); }, "'llama.expert_count' is 8"},
      {[](auto& w) { w.Uint32("split.count", 2); }, "part 1 of 2 by its metadata"},
      {[](auto& w) { w.Text("general.architecture", "mistral3"); },
       "general.architecture 'mistral3': supported are llama, qwen2, qwen3"},
      {[](auto& w) { w.Text("general.type", "adapter"); }, "general.type 'adapter': supported is"},
      {[](auto& w) { w.Float32("llama.attention.temperature_scale", 0.1f); },
       "'attention.temperature_scale': is not supported"},
      {[](auto& w) { w.Find("blk.0.attn_k.weight").type = 34; }, "encoding TQ1_0: supported are"},
      {[](auto& w) { w.RemoveTensor("token_embd.weight"); }, "'token_embd.weight': tensor is"},
      {[](auto& w) { w.RemoveTensor("blk.1.ffn_up.weight"); }, "'blk.1.ffn_up.weight': tensor is"},
      {[](auto& w) {
         w.Find("blk.1.ffn_up.weight").dimensions = {48, 32};
       },
       "'blk.1.ffn_up.weight': shape [32, 48], the config asks for [48, 32]"},
      {[](auto& w) { w.Find("blk.0.attn_k.weight").type = 10; }, "'blk.0.attn_k.weight': encoding"},
      {[](auto& w) {
         auto& norm = w.Find("output_norm.weight");
         norm.type = 8;
         norm.bytes.resize(34);
       },
       "'output_norm.weight': encoding Q8_0: supported for vectors"},
      {[](auto& w) { w.RemoveKey("tokenizer.ggml.model"); }, "'tokenizer.ggml.model' is missing"},
      {[](auto& w) { w.RemoveKey("tokenizer.ggml.tokens"); }, "'tokenizer.ggml.tokens' is missing"},
      {[](auto& w) { w.Int32s("tokenizer.ggml.token_type", {1}); },
       "257 tokens, 0 scores, 1 token"},
      {[](auto& w) {
         std::vector<std::string> tokens = TinyTokens();
         while (tokens.size() < 273) tokens.push_back("xx" + std::to_string(tokens.size()));
         w.Strings("tokenizer.ggml.tokens", tokens);
         w.RemoveKey("tokenizer.ggml.token_type");
       },
       "tokenizer.ggml.tokens: 273 token ids, the model embeds only 272"},
      {[](auto& w) {
         w.tensors.push_back({"rope_freqs.weight", {4}, 0, std::string(16, 0)});
       },
       "'rope_freqs.weight': shape [4]"},
      {[](auto& w) {
         w.tensors.push_back({"rope_freqs.weight", {8}, 0, std::string(32, 0)});
       },
       "'rope_freqs.weight': rope frequency factor 0"},
      {[](auto& w) { w.Find("output_norm.weight").offset_shift = 1 << 20; },
       "'output_norm.weight': its data end at byte"},
  };
  for (const Case& broken : cases) {
    const TempDirectory directory;
    GgufWriter writer = TinyGguf();
    broken.change(writer);
    const std::string path = directory.Write("model.gguf", writer.Bytes());
    const auto start = std::chrono::steady_clock::now();
    const auto checkpoint = Checkpoint::Open(path);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    EXPECT_THAT(std::string(checkpoint.status().message()),
                AllOf(HasSubstr("/model.gguf: "), HasSubstr(broken.message)));
  }
}

TEST(GgufCheckpointTest, RefusesWhatIsNotGguf) {
  const TempDirectory directory;
  const auto error = [&directory](std::string_view contents) {
    return std::string(Checkpoint::Open(directory.Write("m", contents)).status().message());
  };
  EXPECT_THAT(error("PK\x03\x04pickle"), HasSubstr("/m: not a GGUF file: it begins with 'PK"));
  EXPECT_THAT(error("GG"), HasSubstr("the header needs 4 bytes"));
}

}  // namespace
}  // namespace structattn
