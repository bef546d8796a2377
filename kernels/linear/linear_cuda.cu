// Linear on CUDA, where weights are int8: which kernel a call launches, by dtype and number of
// rows, and what it refuses. The choice never changes a bit of the result.
#include <stdexcept>
#include <string>

#include "kernels/check.h"
#include "kernels/cuda/ops.cuh"
#include "kernels/linear/int8_linear.cuh"
#include "kernels/linear/linear.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

void Check(const LinearParams& p) {
  STRUCTATTN_CHECK(p.weight.kind == WeightKind::kInt8 && p.bias == nullptr);
  STRUCTATTN_CHECK(p.output_stride == 0 || p.output_stride == p.weight.outputs);
  if (p.weight.inputs % kInt8ScaleInputs != 0) {
    throw std::runtime_error("int8_linear: inputs " + std::to_string(p.weight.inputs) +
                             ": must be a multiple of 32");
  }
  for (const void* array : {p.input, static_cast<const void*>(p.weight.codes)}) {
    if (reinterpret_cast<uintptr_t>(array) % 16 != 0) {
      throw std::runtime_error("int8_linear: input or codes are not aligned to 16 bytes");
    }
  }
}

template <typename Kernel>
void LaunchFor(const KernelContext& context, const LinearParams& params) {
  Launch<Kernel>(context, Kernel::Shape(params), params);
}

}  // namespace

void Linear(const KernelContext& context, const LinearParams& params) {
  Check(params);
  WithStorage(params.weight.input_dtype, [&]<typename T>(T) {
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
