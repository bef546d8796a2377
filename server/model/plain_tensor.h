// Tensors that are stored as plain numbers: shape check and view. Converts nothing.
#ifndef STRUCTATTN_SERVER_MODEL_PLAIN_TENSOR_H_
#define STRUCTATTN_SERVER_MODEL_PLAIN_TENSOR_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"

namespace structattn {

// Whether `shape` (outermost first) is [rows, columns] of the spec; [columns] where rows is 1.
absl::Status CheckShape(const TensorSpec& spec, std::span<const int64_t> shape);

// Whether `shape` is [experts, rows, columns], with the `rows` of a stack of experts' matrices.
absl::Status CheckStackShape(const TensorSpec& spec, int64_t rows, std::span<const int64_t> shape);

// Of the bytes of such a stack, those of the spec's matrix. A row has the same bytes everywhere.
std::string_view BytesInStack(const TensorSpec& spec, const ExpertStack& stack,
                              std::string_view bytes);

// A view of `bytes`, or a copy where they are not aligned for the type.
LoadedMatrix ViewOrCopy(std::string_view bytes, DType dtype, const TensorSpec& spec);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_PLAIN_TENSOR_H_
