// Compiles the kernel for AMX once more, on tiles in software.
#include "tests/kernels/attention/kernels_under_test.h"

#if defined(__x86_64__)

#include "kernels/attention/attention_amx-inl.h"

// Within the attributes, std::fma is one instruction.
HWY_PUSH_ATTRIBUTES(STRUCTATTN_BF16_ATTRIBUTES)
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
