// Compiles the linear kernels for AMX and AVX512_BF16 once more, on tiles and pairs in software.
#include "tests/kernels/linear/linear_kernels_under_test.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "hwy/base.h"
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
// After linear_bf16_pairs-inl.h.
#include "kernels/linear/linear_amx-inl.h"
#include "kernels/linear/linear_vector-inl.h"
#include "tests/kernels/software_tiles.h"

HWY_POP_ATTRIBUTES

#endif

#if defined(__x86_64__)

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace structattn {
namespace {

// Pairs of bfloat16 as AVX512_BF16 multiplies them, in instructions that every AVX-512 has.
struct SoftwarePairs : Bfloat16Pairs {
  static Vector Odd(Cells pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // Masked: GCC 12 takes an unmasked shift for a use of uninitialised data.
  static Vector Even(Cells pairs) {
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(__mmask16{0xffff}, pairs, 16));
  }
  static Vector MultiplyAdd(Cells unit, Cells cells, Vector sum) {
    sum = _mm512_fmadd_ps(Odd(unit), Odd(cells), sum);
    return _mm512_fmadd_ps(Even(unit), Even(cells), sum);
  }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

#endif

namespace structattn {

bool SoftwareTilesAreReleased() {
#if defined(__x86_64__)
  return !SoftwareTiles::configured();
#else
  return true;
#endif
}

std::vector<const LinearKernel*> DotKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels;
  for (const auto set : kDotKernelSets) {
    for (const LinearKernel& kernel : set()) kernels.push_back(&kernel);
  }
  return kernels;
}

std::vector<const LinearKernel*> QuantizedKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels = DotKernelsUnderTest();
  for (const LinearKernel* kernel : LinearKernelsUnderTest()) {
    if (kernel->run_quantized != nullptr) kernels.push_back(kernel);
  }
  return kernels;
}

std::vector<const LinearKernel*> LinearKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels;
  for (const auto set : kLinearKernelSets) {
    for (const LinearKernel& kernel : set()) kernels.push_back(&kernel);
  }
#if defined(__x86_64__)
  static constexpr LinearKernel kInSoftware[] = {
      TileKernel<SoftwareTiles>("amx_in_software"),
      KernelOf<VectorEngine<SoftwarePairs>>("pairs_in_software", DType::kBfloat16)};
  for (const LinearKernel& kernel : kInSoftware) {
    if (!Avx512LinearKernels().empty()) kernels.push_back(&kernel);
  }
#endif
  return kernels;
}

}  // namespace structattn
