// Sends RmsNorm to the device of its context. Computes nothing itself.
#include "kernels/norm/rms_norm.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void RmsNorm(const KernelContext& context, const RmsNormParams& params) {
  if (context.device == DeviceKind::kCpu) return RmsNormCpu(*context.pool, params);
  CudaOpsFor(context.device).rms_norm(context, params);
}

}  // namespace structattn
