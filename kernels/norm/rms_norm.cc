// Sends RmsNorm to the device of its context.
// Called by server/model. Computes nothing itself.
#include "kernels/norm/rms_norm.h"

#include "kernels/cuda_ops.h"

namespace structattn {

void RmsNorm(const KernelContext& context, const RmsNormParams& params) {
  switch (context.device) {
    case DeviceKind::kCpu:
      return RmsNormCpu(*context.pool, params);
    case DeviceKind::kCuda:
      return RmsNormCuda(context, params);
  }
}

}  // namespace structattn
