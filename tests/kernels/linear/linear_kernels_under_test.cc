// Compiles the linear kernels for AMX and AVX512_BF16 once more, on tiles and pairs in software.
#include "tests/kernels/linear/linear_kernels_under_test.h"

#define HWY_DISABLED_TARGETS                                                          \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | \
   HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/linear/linear_kernels_under_test.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <concepts>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/linear/linear_kernel.h"
#include "tests/kernels/software_tiles.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
#include "kernels/linear/bfloat16-inl.h"
#include "kernels/linear/linear-inl.h"
HWY_POP_ATTRIBUTES

namespace structattn::linear {
namespace HWY_NAMESPACE {
namespace {

// Pairs of bfloat16 as AVX512_BF16 multiplies them, in instructions that every AVX-512 has.
struct SoftwarePairs : Bfloat16Pairs {
  static __m512 Odd(__m512i pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // Masked: GCC 12 takes an unmasked shift for a use of uninitialised data.
  static __m512 Even(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(__mmask16{0xffff}, pairs, 16));
  }
  static FloatVector MultiplyAdd(__m512i inputs, __m512i weights, FloatVector sum) {
    sum.raw = _mm512_fmadd_ps(Odd(inputs), Odd(weights), sum.raw);
    return FloatVector{_mm512_fmadd_ps(Even(inputs), Even(weights), sum.raw)};
  }
};

}  // namespace

const LinearKernel kInSoftware[] = {TileKernel<SoftwareTiles>("amx_in_software"),
                                    {.name = "pairs_in_software",
                                     .dtype = DType::kBfloat16,
                                     .panel_outputs = kPanelOutputs,
                                     .inputs_per_unit = 2,
                                     .units_multiple = 1,
                                     .item_rows = kItemRows,
                                     .run = RunPacked<SoftwarePairs>,
                                     .run_quantized = nullptr}};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace structattn::linear {

bool SoftwareTilesAreReleased() { return !SoftwareTiles::configured(); }

std::vector<const LinearKernel*> DotKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels = QuantizedKernelsUnderTest();
  std::erase_if(kernels, [](const auto* kernel) { return kernel->dtype != DType::kBfloat16; });
  return kernels;
}

std::vector<const LinearKernel*> QuantizedKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels;
  for (const LinearKernel* kernel : LinearKernelsUnderTest()) {
    if (kernel->run_quantized != nullptr) kernels.push_back(kernel);
  }
  return kernels;
}

std::vector<const LinearKernel*> LinearKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels;
  for (const LinearKernel& kernel : Bfloat16Kernels()) kernels.push_back(&kernel);
  for (const LinearKernel& kernel : FloatKernels()) kernels.push_back(&kernel);
#if HWY_TARGETS & HWY_AVX3
  if ((hwy::SupportedTargets() & HWY_AVX3) != 0) {
    for (const LinearKernel& kernel : N_AVX3::kInSoftware) kernels.push_back(&kernel);
  }
#endif
  return kernels;
}

}  // namespace structattn::linear
#endif  // HWY_ONCE
