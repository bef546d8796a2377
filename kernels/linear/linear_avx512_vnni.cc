// The kernel of quantized weights for CPUs with AVX512_VNNI: four products of bytes and their sum
// in one instruction. Reached through kDotKernelSets; asks the CPU before it offers anything.
#include <cstring>

#include "hwy/base.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

#include "kernels/linear/lanes_avx512-inl.h"
#include "kernels/linear/quantized_chunks-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_dot-inl.h"

namespace structattn {
namespace {

// The instruction multiplies unsigned bytes, the codes, by signed ones: n = 256 high + low.
struct VnniEngine {
  using Lanes = Avx512Lanes;
  static constexpr int kMaxRows = 4;
  struct Inputs {
    int8_t high[kChunkInputs];
    int8_t low[kChunkInputs];
  };
  struct Sums {
    __m512i high;
    __m512i low;
  };

  static void Split(const int32_t (&n)[kChunkInputs], Inputs& to) {
    for (int i = 0; i < kChunkInputs; ++i) {
      const int32_t high = (n[i] + 128) >> 8;
      to.high[i] = static_cast<int8_t>(high);
      to.low[i] = static_cast<int8_t>(n[i] - (high << 8));
    }
  }

  static __m512i Load(WordLanes<Lanes>::Words codes) { return (__m512i)codes; }

  static Sums Begin(int32_t sum) { return {_mm512_setzero_si512(), _mm512_set1_epi32(sum)}; }
  static void MultiplyAdd(const Inputs& inputs, int dot, __m512i codes, Sums& sums) {
    sums.high = _mm512_dpbusd_epi32(sums.high, codes, Four(inputs.high + dot * kDotInputs));
    sums.low = _mm512_dpbusd_epi32(sums.low, codes, Four(inputs.low + dot * kDotInputs));
  }
  static Lanes::Ints Total(const Sums& sums) {
    return ((Lanes::Ints)sums.high << 8) + (Lanes::Ints)sums.low;
  }
  static Lanes::Floats FusedMultiplyAdd(Lanes::Floats a, Lanes::Floats b, Lanes::Floats sum) {
    return (Lanes::Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
  }

 private:
  static __m512i Four(const int8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof(four));
    return _mm512_set1_epi32(four);
  }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

namespace structattn {

std::span<const LinearKernel> Avx512VnniDotKernels() {
  static constexpr LinearKernel kKernels[] = {DotKernelOf<VnniEngine>("avx512_vnni")};
  static const bool supported =
      __builtin_cpu_supports("avx512vnni") && !Avx512LinearKernels().empty();
  return supported ? std::span<const LinearKernel>(kKernels) : std::span<const LinearKernel>();
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
std::span<const LinearKernel> Avx512VnniDotKernels() { return {}; }
}  // namespace structattn

#endif
