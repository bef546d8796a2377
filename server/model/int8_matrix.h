// A weight matrix in int8 on a device, as kernels/linear multiplies it there. It multiplies
// nothing itself.
#ifndef STRUCTATTN_SERVER_MODEL_INT8_MATRIX_H_
#define STRUCTATTN_SERVER_MODEL_INT8_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "kernels/matrix_view.h"
#include "kernels/thread_pool.h"
#include "server/model/weight_upload.h"

namespace structattn {

struct Int8Matrix {
  at::Tensor codes;   // [outputs, inputs] int8.
  at::Tensor scales;  // [outputs, inputs / 32] float16.

  int64_t bytes() const { return static_cast<int64_t>(codes.nbytes() + scales.nbytes()); }
};

// Whether a matrix [outputs, inputs] can be one: a scale is shared by 32 inputs, and a launch has
// so many blocks at most.
bool FitsInt8(int64_t outputs, int64_t inputs);

// The rows of `parts` stacked, rounded to the same codes and scales as on the CPU (QuantizeRows).
// All parts have the same columns, and these fit.
Int8Matrix MakeInt8Matrix(std::span<const MatrixView> parts, ThreadPool& pool,
                          WeightUpload& upload);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_INT8_MATRIX_H_
