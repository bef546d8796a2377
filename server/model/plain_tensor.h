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

// A view of `bytes`, or a copy where they are not aligned for the type.
LoadedMatrix ViewOrCopy(std::string_view bytes, DType dtype, const TensorSpec& spec);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_PLAIN_TENSOR_H_
