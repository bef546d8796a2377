// The GGUF container, versions 2 and 3: metadata and the table of tensors, checked against the
// file's size before anything is allocated or any tensor data is touched. Interprets no key but
// general.alignment.
#ifndef STRUCTATTN_SERVER_MODEL_GGUF_H_
#define STRUCTATTN_SERVER_MODEL_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/ggml_encoding.h"

namespace structattn {

enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// A value as it lies in the file, its extent already checked.
struct GgufValue {
  GgufType type;                     // An array has the type of its elements.
  std::optional<uint64_t> elements;  // Present for an array.
  std::string_view bytes;            // A string's characters, or the encoded number or elements.
};

struct GgufTensor {
  std::vector<int64_t> dimensions;  // 1 to 4 of them, the contiguous one first.
  const GgmlEncoding* encoding = nullptr;
  size_t begin = 0;  // Byte range in its file.
  size_t end = 0;
  std::string_view bytes;
};

// Metadata and tensor table of one file, as views into its bytes, which must outlive it.
class Gguf {
 public:
  Gguf() = default;
  static absl::StatusOr<Gguf> Parse(std::string_view file);

  // Reads the key into `target` if the file has it; an error if it is of another kind. Integers of
  // any width fit int64_t (if they do), integers and floats fit double.
  absl::Status Read(std::string_view key, std::optional<int64_t>& target) const;
  absl::Status Read(std::string_view key, std::optional<double>& target) const;
  absl::Status Read(std::string_view key, std::optional<bool>& target) const;
  absl::Status Read(std::string_view key, std::optional<std::string>& target) const;
  absl::Status Read(std::string_view key, std::vector<std::string>& target) const;
  absl::Status Read(std::string_view key, std::vector<float>& target) const;
  absl::Status Read(std::string_view key, std::vector<int32_t>& target) const;
  bool Has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }

  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const;

  // Adds the tensors of another file of the same model, whose bytes must outlive this one too.
  absl::Status AddTensors(const Gguf& part);

  // Where the tensor data begin: everything before describes them.
  size_t data_begin() const { return data_begin_; }

 private:
  const GgufValue* Find(std::string_view key) const;

  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
  size_t data_begin_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_GGUF_H_
