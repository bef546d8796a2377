// The kernels that linear_test tries.
#ifndef STRUCTATTN_TESTS_KERNELS_LINEAR_LINEAR_KERNELS_UNDER_TEST_H_
#define STRUCTATTN_TESTS_KERNELS_LINEAR_LINEAR_KERNELS_UNDER_TEST_H_

#include <vector>

#include "kernels/linear/linear_kernel.h"

namespace structattn::linear {

// Those that this CPU supports, and where it has AVX-512 those for AMX and AVX512_BF16 with what
// they add to that in software.
std::vector<const LinearKernel*> LinearKernelsUnderTest();

// Whether this thread has no software tile configured: after every call it must not.
bool SoftwareTilesAreReleased();

// Of quantized weights: all, and those of quantized_dot.cc.
std::vector<const LinearKernel*> QuantizedKernelsUnderTest();
std::vector<const LinearKernel*> DotKernelsUnderTest();

}  // namespace structattn::linear

#endif  // STRUCTATTN_TESTS_KERNELS_LINEAR_LINEAR_KERNELS_UNDER_TEST_H_
