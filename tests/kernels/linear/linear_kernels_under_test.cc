// Compiles the linear kernel for AMX once more, on tiles in software.
#include "tests/kernels/linear/linear_kernels_under_test.h"

#include <cstring>
#include <type_traits>

#include "hwy/base.h"
#include "kernels/linear/block_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

#include "kernels/linear/block_lanes_avx512-inl.h"
#include "kernels/linear/linear_blocks-inl.h"
// After linear_blocks-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_bf16_pairs-inl.h"
// After linear_bf16_pairs-inl.h.
#include "kernels/linear/linear_amx-inl.h"
#include "tests/kernels/software_tiles.h"

HWY_POP_ATTRIBUTES

#endif

namespace structattn {

std::vector<const LinearKernel*> LinearKernelsUnderTest() {
  std::vector<const LinearKernel*> kernels;
  for (const auto set : kLinearKernelSets) {
    for (const LinearKernel& kernel : set()) kernels.push_back(&kernel);
  }
#if defined(__x86_64__)
  static constexpr LinearKernel kInSoftware =
      KernelOf<TileEngine<SoftwareTiles>>("amx_in_software", DType::kBfloat16);
  if (!Avx512Bf16LinearKernels().empty()) kernels.push_back(&kInSoftware);
#endif
  return kernels;
}

}  // namespace structattn
