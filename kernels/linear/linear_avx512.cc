// The linear kernels of CPUs with AVX-512 (F, BW, VL, DQ): float32, and 16-bit weights and inputs
// widened to float. Reached through kLinearKernelSets; asks the CPU before it offers anything.
#include <cstring>
#include <type_traits>

#include "hwy/base.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

#include "kernels/linear/lanes_avx512-inl.h"
#include "kernels/linear/quantized_chunks-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_expand-inl.h"
// After quantized_expand-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_vector-inl.h"

namespace structattn {
namespace {

// GCC 12 takes unmasked conversions and shifts for a use of uninitialised data.
constexpr __mmask16 kAllLanes = 0xffff;

// What the three formats share: float sums, float units, one input a step.
struct FloatSums {
  using Vector = __m512;
  using Cells = __m512;
  using Unit = float;
  using Lanes = Avx512Lanes;
  static constexpr int kLanes = 16;
  static constexpr int kInputsPerStep = 1;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxSums = 16;

  static Vector Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(Vector value, float* to) { _mm512_storeu_ps(to, value); }
  static Vector Broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Vector MultiplyAdd(Vector unit, Vector cells, Vector sum) {
    return _mm512_fmadd_ps(unit, cells, sum);
  }
};

struct Float32Format : FloatSums {
  using Stored = float;
  using Input = float;
  static Cells LoadCells(const float* from) { return _mm512_load_ps(from); }
  static void Stage(const float* from, int64_t count, float* to) {
    std::memcpy(to, from, sizeof(float) * count);
  }
};

struct Bfloat16Format : FloatSums {
  using Stored = Bfloat16;
  using Input = Bfloat16;
  static Cells LoadCells(const Bfloat16* from) {
    const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(kAllLanes, words);
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, wide, 16));
  }
  static void Stage(const Bfloat16* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

struct Float16Format : FloatSums {
  using Stored = Float16;
  using Input = Float16;
  static Cells LoadCells(const Float16* from) {
    return _mm512_maskz_cvtph_ps(kAllLanes,
                                 _mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void Stage(const Float16* from, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(kAllLanes, words));
    }
    for (; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

namespace structattn {

std::span<const LinearKernel> Avx512LinearKernels() {
  static constexpr LinearKernel kKernels[] = {
      KernelOf<VectorEngine<Float32Format>>("avx512", DType::kFloat32),
      KernelOf<VectorEngine<Bfloat16Format>, VectorEngine<FloatCells<Bfloat16Format>>>(
          "avx512", DType::kBfloat16),
      KernelOf<VectorEngine<Float16Format>, VectorEngine<FloatCells<Float16Format>>>(
          "avx512", DType::kFloat16)};
  static const bool supported = __builtin_cpu_supports("avx512f") &&
                                __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") &&
                                __builtin_cpu_supports("avx512dq") && !Avx2LinearKernels().empty();
  return supported ? std::span<const LinearKernel>(kKernels) : std::span<const LinearKernel>();
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
std::span<const LinearKernel> Avx512LinearKernels() { return {}; }
}  // namespace structattn

#endif
