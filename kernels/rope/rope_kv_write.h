// Rotary embedding (Su et al. 2021, half-split layout) of q and k, optional per-head RMS norm of
// both first (Qwen3), and the write of k and v into the paged cache.
// Called once per layer by server/model/decoder, between the QKV product and attention.
#ifndef STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_
#define STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_

#include <cstdint>
#include <string>

#include "kernels/attention/attention.h"
#include "kernels/context.h"

namespace structattn {

struct RopeKvWriteParams {
  const float* qkv = nullptr;     // [tokens, (heads + 2 kv_heads) * head_dim]: q, then k, then v.
  float* query = nullptr;         // Out: [tokens, heads, head_dim]
  const float* cosine = nullptr;  // [tokens, head_dim / 2], of each token's position.
  const float* sine = nullptr;    // Likewise.
  const float* query_norm = nullptr;  // [head_dim] or null.
  const float* key_norm = nullptr;    // [head_dim] or null.
  float epsilon = 0.0f;               // Of the norms.
  const int64_t* slots = nullptr;     // [tokens]: block id * block_size + offset in the block. On
                                      // CUDA also -1: the token's key and value go nowhere.
  KvLayerView kv;
  int32_t heads = 0;
  int64_t tokens = 0;
};

// Why RopeKvWrite cannot take heads of so many dims on that device; empty when it can.
std::string RopeKvWriteRefusal(DeviceKind device, int64_t head_dim);

// The head_dim is one that RopeKvWriteRefusal lets pass. On CUDA every array is aligned to 16
// bytes, and the cache to four of its elements.
void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params);

// The CPU side, which RopeKvWrite calls for DeviceKind::kCpu.
void RopeKvWriteCpu(ThreadPool& pool, const RopeKvWriteParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_
