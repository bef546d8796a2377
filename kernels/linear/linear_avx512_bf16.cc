// The linear kernel of CPUs with AVX512_BF16: pairs of bfloat16, multiplied and added in one
// instruction. Reached through kLinearKernelSets; asks the CPU before it offers anything.
#include <cstring>

#include "hwy/base.h"
#include "kernels/linear/linear_kernel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

#include "kernels/linear/linear-inl.h"

namespace structattn {
namespace {

struct Bfloat16Pairs {
  using Vector = __m512;
  using Cells = __m512i;
  using Unit = uint32_t;
  using Stored = uint32_t;
  using Input = Bfloat16;
  static constexpr int kLanes = 16;
  static constexpr int kInputsPerStep = 2;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxSums = 16;

  static Vector Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(Vector value, float* to) { _mm512_storeu_ps(to, value); }
  static Cells LoadCells(const Stored* from) { return _mm512_load_si512(from); }
  static Cells Broadcast(const Unit* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static Vector MultiplyAdd(Cells unit, Cells cells, Vector sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)cells, (__m512bh)unit);
  }
  static void Stage(const Input* from, int64_t count, Unit* to) {
    if (count % 2 != 0) to[count / 2] = from[count - 1].bits;  // The absent half is 0.
    std::memcpy(to, from, sizeof(Input) * (count / 2 * 2));
  }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

namespace structattn {

std::span<const LinearKernel> Avx512Bf16LinearKernels() {
  static constexpr LinearKernel kKernels[] = {
      KernelOf<Bfloat16Pairs>("avx512_bf16", DType::kBfloat16)};
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") && !Avx512LinearKernels().empty();
  return supported ? std::span<const LinearKernel>(kKernels) : std::span<const LinearKernel>();
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
std::span<const LinearKernel> Avx512Bf16LinearKernels() { return {}; }
}  // namespace structattn

#endif
