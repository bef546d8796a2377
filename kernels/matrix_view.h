// A matrix of plain numbers that somebody else owns: what checkpoints hand out and weights are
// packed from. Holds no memory, converts nothing.
#ifndef STRUCTATTN_KERNELS_LINEAR_MATRIX_VIEW_H_
#define STRUCTATTN_KERNELS_LINEAR_MATRIX_VIEW_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace structattn {

// A row-major matrix [rows, columns] of `dtype`, not owned.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_LINEAR_MATRIX_VIEW_H_
