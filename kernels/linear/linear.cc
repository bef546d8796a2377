// Sends Linear to the kernels of its context's device. Computes nothing itself.
#include "kernels/linear/linear.h"

#include "kernels/check.h"
#include "kernels/cuda/ops.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn {

void Linear(const KernelContext& context, const LinearParams& params) {
  const bool on_cpu = context.device == DeviceKind::kCpu;
  STRUCTATTN_CHECK(on_cpu == (params.weight.kind != WeightKind::kInt8));
  if (on_cpu) return linear::LinearCpu(*context.pool, params);
  CudaOpsFor(context.device).linear(context, params);
}

}  // namespace structattn
