// Sends Linear to the kernels of its context's device. Computes nothing itself.
#include "kernels/linear/linear.h"

#include "kernels/check.h"
#include "kernels/cuda/ops.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn {

void Linear(const KernelContext& context, const LinearParams& params) {
  LinearMany(context, {&params, 1});
}

void LinearMany(const KernelContext& context, std::span<const LinearParams> products) {
  const bool on_cpu = context.device == DeviceKind::kCpu;
  for (const LinearParams& product : products) {
    STRUCTATTN_CHECK(on_cpu == (product.weight.kind != WeightKind::kInt8));
    if (!on_cpu) CudaOpsFor(context.device).linear(context, product);
  }
  if (on_cpu) linear::LinearCpu(*context.pool, products);
}

}  // namespace structattn
