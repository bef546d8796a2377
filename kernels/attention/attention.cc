// The seam between devices: checks what every device relies on, then hands over.
#include "kernels/attention/attention.h"

#include "kernels/attention/attention_cpu.h"
#include "kernels/check.h"
#include "kernels/cuda_ops.h"

namespace structattn {

void Attention(const KernelContext& context, const AttentionParams& params) {
  STRUCTATTN_CHECK(params.kv.kv_heads > 0 && params.heads % params.kv.kv_heads == 0);
  STRUCTATTN_CHECK(params.kv.block_size > 0 && params.kv.block_size % 16 == 0);
  STRUCTATTN_CHECK(params.kv.head_dim > 0 && params.kv.head_dim % 16 == 0);
  switch (context.device) {
    case DeviceKind::kCpu:
      return AttentionCpu(*context.pool, params);
    case DeviceKind::kCuda:
      return AttentionCuda(context, params);
  }
}

std::string_view AttentionKernelName(DeviceKind device) {
  return device == DeviceKind::kCpu ? AttentionCpuName() : AttentionCudaName();
}

}  // namespace structattn
