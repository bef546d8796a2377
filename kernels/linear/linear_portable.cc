// The linear kernels of any CPU: vectors of four floats as GCC and Clang know them everywhere, a
// multiplication and an addition where others have one instruction.
// Reached through kLinearKernelSets as the last choice.
#include <cstring>
#include <type_traits>

#include "kernels/linear/block_panel.h"
#include "kernels/linear/linear_kernel.h"
// After what it needs.
#include "kernels/linear/linear_blocks-inl.h"
// After linear_blocks-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_vector-inl.h"

namespace structattn {
namespace {

// See linear_blocks-inl.h.
struct PortableLanes {
  static constexpr int kLanes = 4;
  typedef int32_t Ints __attribute__((vector_size(16)));
  typedef float Floats __attribute__((vector_size(16)));

  static Ints Bytes(const uint8_t* from) { return Ints{from[0], from[1], from[2], from[3]}; }
  static Ints SignedBytes(const uint8_t* from) { return (Bytes(from) ^ 0x80) - 0x80; }
  static Floats Halves(const uint8_t* from) {
    Float16 halves[kLanes];
    std::memcpy(halves, from, sizeof(halves));
    return Floats{ToFloat(halves[0]), ToFloat(halves[1]), ToFloat(halves[2]), ToFloat(halves[3])};
  }
};

template <typename T>
struct PortableFormat {
  using Vector = float __attribute__((vector_size(16)));
  using Cells = Vector;
  using Unit = float;
  using Lanes = PortableLanes;
  using Stored = T;
  using Input = T;
  static constexpr int kLanes = 4;
  static constexpr int kInputsPerStep = 1;
  static constexpr int kMaxRows = 4;
  static constexpr int kMaxSums = 8;

  static Vector Load(const float* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static void Store(Vector value, float* to) { std::memcpy(to, &value, sizeof(value)); }
  static Cells LoadCells(const T* from) {
    return Vector{ToFloat(from[0]), ToFloat(from[1]), ToFloat(from[2]), ToFloat(from[3])};
  }
  static Vector Broadcast(const float* from) { return Vector{*from, *from, *from, *from}; }
  static Vector MultiplyAdd(Vector unit, Cells cells, Vector sum) { return unit * cells + sum; }
  static void Stage(const T* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

}  // namespace

std::span<const LinearKernel> PortableLinearKernels() {
  static constexpr LinearKernel kKernels[] = {
      KernelOf<VectorEngine<PortableFormat<float>>>("portable", DType::kFloat32),
      KernelOf<VectorEngine<PortableFormat<Bfloat16>>,
               VectorEngine<FloatCells<PortableFormat<Bfloat16>>>>("portable", DType::kBfloat16),
      KernelOf<VectorEngine<PortableFormat<Float16>>,
               VectorEngine<FloatCells<PortableFormat<Float16>>>>("portable", DType::kFloat16)};
  return kKernels;
}

}  // namespace structattn
