// The linear kernels of CPUs with AVX2, FMA and F16C: float32, and 16-bit weights and inputs
// widened to float. Reached through kLinearKernelSets and kDotKernelSets; asks the CPU before it
// offers anything.
#include <cstring>
#include <type_traits>

#include "hwy/base.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,f16c")

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
struct Avx2Lanes {
  static constexpr int kLanes = 8;
  typedef int32_t Ints __attribute__((vector_size(32)));
  typedef float Floats __attribute__((vector_size(32)));

  static Ints Bytes(const uint8_t* from) {
    return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Ints SignedBytes(const uint8_t* from) {
    return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Floats Halves(const uint8_t* from) {
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
};

// What the three formats share: float sums, float units, one input a step.
struct FloatSums {
  using Vector = __m256;
  using Cells = __m256;
  using Unit = float;
  using Lanes = Avx2Lanes;
  static constexpr int kLanes = 8;
  static constexpr int kInputsPerStep = 1;
  static constexpr int kMaxRows = 6;
  static constexpr int kMaxSums = 12;

  static Vector Load(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(Vector value, float* to) { _mm256_storeu_ps(to, value); }
  static Vector Broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector MultiplyAdd(Vector unit, Vector cells, Vector sum) {
    return _mm256_fmadd_ps(unit, cells, sum);
  }
};

// The Engine of quantized_dot-inl.h: words of 16 bits, multiplied and added in pairs. The four
// inputs are in the order 0, 2, 1, 3, as its even and odd bytes lie when they become words.
struct WordsEngine {
  using Lanes = Avx2Lanes;
  static constexpr int kMaxRows = 2;
  struct Inputs {
    int16_t n[kChunkInputs];
  };
  struct Codes {
    __m256i even;
    __m256i odd;
  };
  using Sums = __m256i;

  static void Split(const int32_t (&n)[kChunkInputs], Inputs& to) {
    constexpr int kOrder[kDotInputs] = {0, 2, 1, 3};
    for (int i = 0; i < kChunkInputs; ++i) {
      const int from = i / kDotInputs * kDotInputs + kOrder[i % kDotInputs];
      to.n[i] = static_cast<int16_t>(n[from]);
    }
  }

  static Codes Load(WordLanes<Lanes>::Words codes) {
    return {(__m256i)(codes & 0x00ff00ffu), (__m256i)((codes >> 8) & 0x00ff00ffu)};
  }
  static Sums Begin(int32_t sum) { return _mm256_set1_epi32(sum); }
  static void MultiplyAdd(const Inputs& inputs, int dot, const Codes& codes, Sums& sum) {
    const int16_t* const n = inputs.n + dot * kDotInputs;
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes.even, Two(n)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes.odd, Two(n + 2)));
  }
  static Lanes::Ints Total(Sums sum) { return (Lanes::Ints)sum; }
  static Lanes::Floats FusedMultiplyAdd(Lanes::Floats a, Lanes::Floats b, Lanes::Floats sum) {
    return (Lanes::Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
  }

 private:
  static __m256i Two(const int16_t* from) {
    int32_t two;
    std::memcpy(&two, from, sizeof(two));
    return _mm256_set1_epi32(two);
  }
};

struct Float32Format : FloatSums {
  using Stored = float;
  using Input = float;
  static Cells LoadCells(const float* from) { return _mm256_load_ps(from); }
  static void Stage(const float* from, int64_t count, float* to) {
    std::memcpy(to, from, sizeof(float) * count);
  }
};

struct Bfloat16Format : FloatSums {
  using Stored = Bfloat16;
  using Input = Bfloat16;
  static Cells LoadCells(const Bfloat16* from) {
    const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
  }
  static void Stage(const Bfloat16* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

struct Float16Format : FloatSums {
  using Stored = Float16;
  using Input = Float16;
  static Cells LoadCells(const Float16* from) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void Stage(const Float16* from, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(words));
    }
    for (; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

namespace structattn {

std::span<const LinearKernel> Avx2LinearKernels() {
  static constexpr LinearKernel kKernels[] = {
      KernelOf<VectorEngine<Float32Format>>("avx2", DType::kFloat32),
      KernelOf<VectorEngine<Bfloat16Format>, VectorEngine<FloatCells<Bfloat16Format>>>(
          "avx2", DType::kBfloat16),
      KernelOf<VectorEngine<Float16Format>, VectorEngine<FloatCells<Float16Format>>>(
          "avx2", DType::kFloat16)};
  // GCC 12 knows no feature named f16c; every CPU with AVX2 has it.
  static const bool supported = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return supported ? std::span<const LinearKernel>(kKernels) : std::span<const LinearKernel>();
}

std::span<const LinearKernel> Avx2DotKernels() {
  static constexpr LinearKernel kKernels[] = {DotKernelOf<WordsEngine>("avx2")};
  return Avx2LinearKernels().empty() ? std::span<const LinearKernel>()
                                     : std::span<const LinearKernel>(kKernels);
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
std::span<const LinearKernel> Avx2LinearKernels() { return {}; }
std::span<const LinearKernel> Avx2DotKernels() { return {}; }
}  // namespace structattn

#endif
