// Sends RopeKvWrite to the device of its context. Computes nothing itself.
#include "kernels/rope/rope_kv_write.h"

#include "kernels/check.h"
#include "kernels/cuda/ops.h"

namespace structattn {

std::string RopeKvWriteRefusal(DeviceKind device, int64_t head_dim) {
  const int multiple = device == DeviceKind::kCpu ? 16 : 8;
  if (head_dim > 0 && head_dim % multiple == 0 && head_dim <= 256) return "";
  return "head_dim " + std::to_string(head_dim) + ": rotary embedding takes multiples of " +
         std::to_string(multiple) + " up to 256";
}

void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params) {
  STRUCTATTN_CHECK(RopeKvWriteRefusal(context.device, params.kv.head_dim).empty());
  if (context.device == DeviceKind::kCpu) return RopeKvWriteCpu(*context.pool, params);
  CudaOpsFor(context.device).rope_kv_write(context, params);
}

}  // namespace structattn
