// A matrix of plain numbers in memory of another owner: what checkpoints hand out and weights are
// packed from. It holds no memory.
#ifndef STRUCTATTN_KERNELS_MATRIX_VIEW_H_
#define STRUCTATTN_KERNELS_MATRIX_VIEW_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace structattn {

// A row-major matrix [rows, columns] of `dtype`, not owned.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t row_bytes() const { return columns * static_cast<int64_t>(ByteSize(dtype)); }

  // Values [begin, begin + count) of a row as floats.
  void ReadRow(int64_t row, int64_t begin, int64_t count, float* to) const {
    const auto read = [&]<typename T>(T) {
      const T* const from = static_cast<const T*>(data) + row * columns + begin;
      for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
    };
    switch (dtype) {
      case DType::kFloat32:
        return read(float{});
      case DType::kBfloat16:
        return read(Bfloat16{});
      case DType::kFloat16:
        return read(Float16{});
    }
  }
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_MATRIX_VIEW_H_
