// Every kernel for bfloat16 KV that this machine can run, so that tests do not stop at the best.
// None is ever offered that would fault here.
#ifndef STRUCTATTN_TESTS_KERNELS_ATTENTION_KERNELS_UNDER_TEST_H_
#define STRUCTATTN_TESTS_KERNELS_ATTENTION_KERNELS_UNDER_TEST_H_

#include <string>
#include <vector>

#include "kernels/attention/attention_kernel.h"

namespace structattn {

// Null is the kernel in float. With AVX512_BF16 there is also the kernel for AMX on tiles in
// software, named "AMX_IN_SOFTWARE", and the real one where there is AMX.
std::vector<const AttentionKernel*> Bf16KernelsUnderTest();

std::string KernelName(const AttentionKernel* kernel);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_ATTENTION_KERNELS_UNDER_TEST_H_
