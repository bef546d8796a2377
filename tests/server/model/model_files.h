// Writers of small model files, right ones and wrong ones, for the tests of server/model.
// Byte by byte and independent of the readers; never linked into a program.
#ifndef STRUCTATTN_TESTS_SERVER_MODEL_MODEL_FILES_H_
#define STRUCTATTN_TESTS_SERVER_MODEL_MODEL_FILES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/checkpoint.h"

namespace structattn {

// A directory that removes itself.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Writes, or overwrites, path()/name; returns the whole path.
  std::string Write(std::string_view name, std::string_view contents) const;

 private:
  std::string path_;
};

// `value`'s bytes in memory order, which is little-endian.
template <typename T>
std::string BytesOf(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

// A tensor to be written. `dtype` is F32, F16 or BF16.
struct FileTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// The length field, `header` and `data`, whatever they say.
std::string SafetensorsFrom(std::string_view header, std::string_view data);
// The header that describes `tensors` rightly, back to back.
nlohmann::json SafetensorsHeader(const std::vector<FileTensor>& tensors);
std::string SafetensorsBytes(const std::vector<FileTensor>& tensors);

// Element `index` of the tensor `name` in the tiny models: a small integer, exact in every dtype.
float TinyValue(std::string_view name, int64_t index);
// `count` values of a tensor, encoded; `dtype` as in FileTensor.
std::string TinyBytes(std::string_view name, std::string_view dtype, int64_t count);

// A LLaMA of two layers, hidden size 32, two heads of 16, one KV head, vocabulary 272, untied,
// with a byte-level tokenizer of 257 tokens.
nlohmann::json TinyConfig();
std::string TinyTokenizer();
// The tokens of that tokenizer, in order.
std::vector<std::string> TinyTokens();
// Every tensor that `config` asks for.
std::vector<FileTensor> TinyTensors(const ModelConfig& config, std::string_view dtype);
// config.json, tokenizer.json and model.safetensors of the tiny model, F32.
void WriteTinyModel(const TempDirectory& directory);

// Writes a GGUF file. The public fields are written as they are, right or wrong.
class GgufWriter {
 public:
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;    // Used for the layout; the key general.alignment is separate.
  int64_t extra_tensors = 0;  // Added to the announced counts.
  int64_t extra_keys = 0;

  void Text(std::string_view key, std::string_view value);
  void Uint32(std::string_view key, uint32_t value);
  void Float32(std::string_view key, float value);
  void Bool(std::string_view key, bool value);
  void Strings(std::string_view key, const std::vector<std::string>& values);
  void Int32s(std::string_view key, const std::vector<int32_t>& values);
  // Any value: its type number and its encoded bytes. Replaces an earlier value of the key.
  void Value(std::string_view key, uint32_t type, std::string_view bytes);
  void RemoveKey(std::string_view key);

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // Contiguous one first.
    uint32_t type;
    std::string bytes;
    int64_t offset_shift = 0;  // Added to the right offset.
    int repeat = 1;            // How often the table lists it.
  };
  std::vector<Tensor> tensors;
  Tensor& Find(std::string_view name);
  void RemoveTensor(std::string_view name);

  std::string Bytes() const;

 private:
  struct Key {
    std::string name;
    uint32_t type;
    std::string bytes;
  };
  std::vector<Key> keys_;
};

// A string as GGUF encodes it.
std::string GgufString(std::string_view text);

// The same tiny model as WriteTinyModel's, q and k permuted as GGUF files of LLaMA are; F32.
GgufWriter TinyGguf();

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_MODEL_MODEL_FILES_H_
