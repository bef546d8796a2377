// A matrix of a quantised folder: its tensors, found and checked, and its values. Which settings
// the folder has is in folder_quantization.h, what codes stand for in kernels/quant.
#ifndef STRUCTATTN_SERVER_MODEL_QUANTIZED_MATRIX_H_
#define STRUCTATTN_SERVER_MODEL_QUANTIZED_MATRIX_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/checkpoint.h"
#include "server/model/folder_quantization.h"
#include "server/model/safetensors_folder.h"
#include "server/model/tensor_table.h"

namespace structattn {

using FoundTensor = SafetensorsFolder::Found;
// The tensor of that name, or of another under which it may be stored; absent where none is there.
using TensorFinder =
    std::function<absl::StatusOr<std::optional<FoundTensor>>(const std::string& name)>;

// The folder outlives it.
struct QuantizedMatrix {
  FolderQuantization quantization;
  int64_t outputs = 0;
  int64_t inputs = 0;
  ScaleTile tile;  // In numbers: kAll is resolved.
  FoundTensor codes;
  FoundTensor scales;
  std::optional<FoundTensor> zeros;      // Else half of a code's range.
  std::optional<FoundTensor> input_map;  // Else in order.

  // Scales along outputs and along inputs.
  int64_t scale_rows() const { return (outputs + tile.outputs - 1) / tile.outputs; }
  int64_t scale_columns() const { return (inputs + tile.inputs - 1) / tile.inputs; }
};

// The name of the tensor with the codes of a matrix: "lm_head.weight" -> "lm_head.qweight".
std::string NameOfCodes(QuantizedForm form, std::string_view name);

// Absent where the folder stores the matrix as plain numbers. On success every tensor has its shape
// and type, and no index in them is out of range.
absl::StatusOr<std::optional<QuantizedMatrix>> LocateQuantizedMatrix(
    const FolderQuantization& quantization, const TensorSpec& spec, const TensorFinder& find);

// Expanded to float32.
LoadedMatrix Expand(const QuantizedMatrix& matrix, ThreadPool* pool);

// The format of Hold, which it has where its scales and zeros allow.
std::optional<QuantFormat> HeldFormat(const QuantizedMatrix& matrix);

// In quant blocks of the same values; absent where no format holds them.
std::optional<QuantMatrix> Hold(const QuantizedMatrix& matrix, ThreadPool& pool);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_QUANTIZED_MATRIX_H_
