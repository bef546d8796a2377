// The seam between devices: checks what every device relies on, then hands over.
#include "kernels/attention/attention.h"

#include <algorithm>

#include "kernels/attention/attention_cpu.h"
#include "kernels/check.h"
#include "kernels/cuda/ops.h"

namespace structattn {

void Attention(const KernelContext& context, const AttentionParams& params) {
  STRUCTATTN_CHECK(params.kv.kv_heads > 0 && params.heads % params.kv.kv_heads == 0);
  STRUCTATTN_CHECK(params.kv.block_size > 0 && params.kv.block_size % 16 == 0);
  STRUCTATTN_CHECK(params.kv.head_dim > 0 && params.kv.head_dim % 16 == 0);
  if (context.device == DeviceKind::kCpu) return AttentionCpu(*context.pool, params);
  CudaOpsFor(context.device).attention(context, params);
}

Tiling AttentionTiling(DeviceKind device, int ratio) {
  if (device == DeviceKind::kCpu) return {.tile_tokens = kCpuTileRows, .split_kv_branches = 0};
  const int tokens = std::max(1, kCudaTileRows / ratio);
  return {.tile_tokens = tokens, .split_kv_branches = tokens};
}

std::string_view AttentionKernelName(DeviceKind device) {
  return device == DeviceKind::kCpu ? AttentionCpuName() : CudaOpsFor(device).attention_name;
}

}  // namespace structattn
