// The CPU's layout of a KV cache, element by element, as KvLayerView describes it. Tests and
// benches fill caches with it; the server never does.
#ifndef STRUCTATTN_TESTS_KERNELS_CPU_KV_LAYOUT_H_
#define STRUCTATTN_TESTS_KERNELS_CPU_KV_LAYOUT_H_

#include <cstdint>

#include "kernels/attention/attention.h"

namespace structattn {

// Where the CPU's layout has one dim of a key. `slot` is block id * block_size + place in the
// block.
inline int64_t CpuKeyIndex(const KvLayerView& kv, int64_t slot, int64_t head, int64_t dim) {
  const int64_t begin = (slot / kv.block_size * kv.kv_heads + head) * kv.head_dim * kv.block_size;
  const int64_t offset = slot % kv.block_size;
  if (kv.dtype != DType::kBfloat16) return begin + dim * kv.block_size + offset;
  return begin + (dim / 2 * kv.block_size + offset) * 2 + dim % 2;
}

// Where the CPU's layout has one dim of a value.
inline int64_t CpuValueIndex(const KvLayerView& kv, int64_t slot, int64_t head, int64_t dim) {
  const int64_t block = slot / kv.block_size;
  return ((block * kv.kv_heads + head) * kv.block_size + slot % kv.block_size) * kv.head_dim + dim;
}

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_CPU_KV_LAYOUT_H_
