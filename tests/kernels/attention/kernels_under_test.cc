// Compiles the kernel for AMX once more, on tiles in software.
#include "tests/kernels/attention/kernels_under_test.h"

#include "hwy/base.h"

#if defined(__x86_64__)

#include "kernels/attention/attention_bf16_includes.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,prfchw")

#include "kernels/attention/attention_bf16-inl.h"
// After attention_bf16-inl.h.
#include "kernels/attention/attention_amx-inl.h"
#include "tests/kernels/software_tiles.h"

HWY_POP_ATTRIBUTES

namespace structattn {

std::vector<const AttentionKernel*> Bf16KernelsUnderTest() {
  static constexpr AttentionKernel kInSoftware = TileKernel<SoftwareTiles>("AMX_IN_SOFTWARE");
  std::vector<const AttentionKernel*> kernels = {nullptr};
  if (Avx512Bf16AttentionKernel() != nullptr) {
    kernels.push_back(Avx512Bf16AttentionKernel());
    kernels.push_back(&kInSoftware);
  }
  if (AmxAttentionKernel() != nullptr) kernels.push_back(AmxAttentionKernel());
  return kernels;
}

#else  // Not x86-64.

namespace structattn {

std::vector<const AttentionKernel*> Bf16KernelsUnderTest() { return {nullptr}; }

#endif

std::string KernelName(const AttentionKernel* kernel) {
  return kernel == nullptr ? "FLOAT" : std::string(kernel->name);
}

}  // namespace structattn
