// The seam between devices: it checks what every device relies on, then hands over.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <string>

#include "kernels/attention/attention_cpu.h"
#include "kernels/check.h"
#include "kernels/cuda/ops.h"

namespace structattn {
namespace {

constexpr int64_t kLargestHeadDim = 256;  // On the CPU, and in float32 on CUDA.

// Tensor cores have a kernel for each of these.
bool HasFlashKernel(int64_t head_dim) {
  return head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128;
}

}  // namespace

std::string AttentionRefusal(DeviceKind device, const AttentionHeads& asked) {
  const auto head_dim = [&asked] { return "head_dim " + std::to_string(asked.head_dim); };
  if (asked.head_dim <= 0 || asked.head_dim % 16 != 0 || asked.head_dim > kLargestHeadDim) {
    return head_dim() + ": supported are multiples of 16 up to " + std::to_string(kLargestHeadDim);
  }
  if (asked.kv_heads <= 0 || asked.heads % asked.kv_heads != 0) {
    return std::to_string(asked.heads) + " query heads: must be a multiple of the " +
           std::to_string(asked.kv_heads) + " KV heads";
  }
  if (device == DeviceKind::kCpu) return "";
  if (asked.dtype != DType::kFloat32 && !HasFlashKernel(asked.head_dim)) {
    return head_dim() + ": supported on CUDA are 64, 80, 96, 128";
  }
  if (asked.heads / asked.kv_heads > kCudaTileRows) {
    return std::to_string(asked.heads / asked.kv_heads) +
           " query heads of one KV head: supported on CUDA are up to " +
           std::to_string(kCudaTileRows);
  }
  return "";
}

void Attention(const KernelContext& context, const AttentionParams& params) {
  const KvLayerView& kv = params.kv;
  STRUCTATTN_CHECK(kv.block_size > 0 && kv.block_size % 16 == 0);
  STRUCTATTN_CHECK(AttentionRefusal(context.device, {.dtype = kv.dtype,
                                                     .heads = params.heads,
                                                     .kv_heads = kv.kv_heads,
                                                     .head_dim = kv.head_dim})
                       .empty());
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
