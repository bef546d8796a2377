// The linear kernel of CPUs with AVX512_BF16: pairs of bfloat16, multiplied and added in one
// instruction. Reached through kLinearKernelSets; asks the CPU before it offers anything.
#include <cstring>
#include <type_traits>

#include "hwy/base.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

#include "kernels/linear/quantized_chunks-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_expand-inl.h"
// After quantized_expand-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_bf16_pairs-inl.h"
#include "kernels/linear/linear_vector-inl.h"

HWY_POP_ATTRIBUTES

namespace structattn {

std::span<const LinearKernel> Avx512Bf16LinearKernels() {
  static constexpr LinearKernel kKernels[] = {
      KernelOf<VectorEngine<Bfloat16Pairs>>("avx512_bf16", DType::kBfloat16)};
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
