// The linear kernels of any CPU: vectors of four floats as GCC and Clang know them everywhere, a
// multiplication and an addition where others have one instruction.
// Reached through kLinearKernelSets and kDotKernelSets as the last choice.
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"
// After what it needs.
#include "kernels/linear/quantized_chunks-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_expand-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_dot-inl.h"
// After quantized_expand-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_vector-inl.h"

namespace structattn {
namespace {

// See quantized_chunks-inl.h.
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

// The Engine of quantized_dot-inl.h.
struct PortableEngine {
  using Lanes = PortableLanes;
  static constexpr int kMaxRows = 2;
  struct Inputs {
    int16_t n[kChunkInputs];
  };
  using Sums = Lanes::Ints;

  static void Split(const int32_t (&n)[kChunkInputs], Inputs& to) {
    for (int i = 0; i < kChunkInputs; ++i) to.n[i] = static_cast<int16_t>(n[i]);
  }

  static WordLanes<Lanes>::Words Load(WordLanes<Lanes>::Words codes) { return codes; }
  static Sums Begin(int32_t sum) { return Sums{sum, sum, sum, sum}; }
  static void MultiplyAdd(const Inputs& inputs, int dot, WordLanes<Lanes>::Words codes, Sums& sum) {
    for (int i = 0; i < kDotInputs; ++i) {
      const auto code = BitCastLanes<Sums>((codes >> (8 * i)) & 0xffu);
      sum += code * int32_t{inputs.n[dot * kDotInputs + i]};
    }
  }
  static Lanes::Ints Total(Sums sum) { return sum; }
  static Lanes::Floats FusedMultiplyAdd(Lanes::Floats a, Lanes::Floats b, Lanes::Floats sum) {
    return Lanes::Floats{std::fma(a[0], b[0], sum[0]), std::fma(a[1], b[1], sum[1]),
                         std::fma(a[2], b[2], sum[2]), std::fma(a[3], b[3], sum[3])};
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

std::span<const LinearKernel> PortableDotKernels() {
  static constexpr LinearKernel kKernels[] = {DotKernelOf<PortableEngine>("portable")};
  return kKernels;
}

}  // namespace structattn
