// Sends RopeKvWrite to the device of its context.
// Called by server/model. Computes nothing itself.
#include "kernels/rope/rope_kv_write.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params) {
  if (context.device == DeviceKind::kCpu) return RopeKvWriteCpu(*context.pool, params);
  CudaOpsFor(context.device).rope_kv_write(context, params);
}

}  // namespace structattn
