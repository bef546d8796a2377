// Int8Linear on CUDA: which kernel a call launches, by dtype and number of rows, and what it
// refuses. Called through the table of ops. The choice never changes a bit of the result.
#include <stdexcept>
#include <string>

#include "kernels/cuda/ops.cuh"
#include "kernels/linear/int8_linear.cuh"
#include "kernels/linear/int8_linear.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

void Check(const Int8LinearParams& p) {
  if (p.inputs % kInt8ScaleInputs != 0) {
    throw std::runtime_error("int8_linear: inputs " + std::to_string(p.inputs) +
                             ": must be a multiple of 32");
  }
  for (const void* array : {p.input, static_cast<const void*>(p.codes)}) {
    if (reinterpret_cast<uintptr_t>(array) % 16 != 0) {
      throw std::runtime_error("int8_linear: input or codes are not aligned to 16 bytes");
    }
  }
}

template <typename Kernel>
void LaunchFor(const KernelContext& context, const Int8LinearParams& params) {
  Launch<Kernel>(context, Kernel::Shape(params), params);
}

}  // namespace

void Int8Linear(const KernelContext& context, const Int8LinearParams& params) {
  Check(params);
  WithStorage(params.input_dtype, [&]<typename T>(T) {
    if constexpr (std::is_same_v<T, float>) {
      LaunchFor<Int8LinearFloatKernel>(context, params);
    } else if (params.rows <= 16) {
      LaunchFor<Int8LinearKernel<T, 16>>(context, params);
    } else if (params.rows <= 64) {
      LaunchFor<Int8LinearKernel<T, 64>>(context, params);
    } else {
      LaunchFor<Int8LinearKernel<T, 96>>(context, params);
    }
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
