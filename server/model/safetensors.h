// One safetensors file, its header checked against the file's size before any data is touched.
// Knows nothing of models: names, types, shapes and bytes only.
#ifndef STRUCTATTN_SERVER_MODEL_SAFETENSORS_H_
#define STRUCTATTN_SERVER_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "server/model/mapped_file.h"

namespace structattn {

struct StoredTensor {
  std::string dtype;  // As the format names it: "BF16", "I64", ...
  std::vector<int64_t> shape;
  size_t begin = 0;  // Byte range after the header.
  size_t end = 0;
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// The header's JSON, checked: known types, sizes that equal type x shape, byte ranges that cover
// [0, data_bytes) without overlap or gap, no name twice.
absl::StatusOr<StoredTensors> ParseSafetensorsHeader(std::string_view json, size_t data_bytes);

// F32, F16 and BF16; absent for the others.
std::optional<DType> PlainDType(std::string_view safetensors_dtype);

class SafetensorsFile {
 public:
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const StoredTensors& tensors() const { return tensors_; }
  std::string_view Bytes(const StoredTensor& tensor) const {
    return file_.bytes().substr(data_begin_ + tensor.begin, tensor.end - tensor.begin);
  }
  // The length field and the JSON.
  std::string_view header() const { return file_.bytes().substr(0, data_begin_); }
  size_t file_bytes() const { return file_.size(); }

 private:
  SafetensorsFile(MappedFile file, size_t data_begin, StoredTensors tensors)
      : file_(std::move(file)), data_begin_(data_begin), tensors_(std::move(tensors)) {}

  MappedFile file_;
  size_t data_begin_;
  StoredTensors tensors_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_SAFETENSORS_H_
