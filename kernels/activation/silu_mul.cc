// Sends SiluMul to the device of its context. Computes nothing itself.
#include "kernels/activation/silu_mul.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void SiluMul(const KernelContext& context, const SiluMulParams& params) {
  if (context.device == DeviceKind::kCpu) return SiluMulCpu(*context.pool, params);
  CudaOpsFor(context.device).silu_mul(context, params);
}

}  // namespace structattn
