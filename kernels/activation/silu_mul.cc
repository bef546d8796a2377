// Sends SiluMul to the device of its context.
// Called by server/model. Computes nothing itself.
#include "kernels/activation/silu_mul.h"

#include "kernels/cuda_ops.h"

namespace structattn {

void SiluMul(const KernelContext& context, const SiluMulParams& params) {
  switch (context.device) {
    case DeviceKind::kCpu:
      return SiluMulCpu(*context.pool, params);
    case DeviceKind::kCuda:
      return SiluMulCuda(context, params);
  }
}

}  // namespace structattn
