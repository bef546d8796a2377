// Rotary embedding (Su et al. 2021, half-split layout) of q and k, after an optional per-head RMS
// norm of both (Qwen3), and the write of k and v into the paged cache. It never reads the cache.
#ifndef STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_
#define STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_

#include <cstdint>
#include <string>

#include "kernels/attention/attention.h"
#include "kernels/context.h"

namespace structattn {

struct RopeKvWriteParams {
  const float* qkv = nullptr;  // [tokens, (heads + 2 kv_heads) * head_dim]: q, then k, then v
  float* query = nullptr;      // The output [tokens, heads, head_dim]
  // [tokens, head_dim / 2], the angles of each token's position.
  const float* cosine = nullptr;
  const float* sine = nullptr;
  // [head_dim], or null for none.
  const float* query_norm = nullptr;
  const float* key_norm = nullptr;
  float epsilon = 0.0f;  // Both norms add it to the mean.
  // [tokens]: block id * block_size + offset in the block. On CUDA it may be -1, and the token's
  // key and value then go nowhere.
  const int64_t* slots = nullptr;
  KvLayerView kv;
  int32_t heads = 0;
  int64_t tokens = 0;
};

// Why RopeKvWrite cannot take heads of so many dims on that device; empty when it can.
std::string RopeKvWriteRefusal(DeviceKind device, int64_t head_dim);

// The head_dim is one that RopeKvWriteRefusal lets pass. On CUDA every array is aligned to 16
// bytes, and the cache to four of its elements.
void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params);

// The CPU side of RopeKvWrite.
void RopeKvWriteCpu(ThreadPool& pool, const RopeKvWriteParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ROPE_ROPE_KV_WRITE_H_
