// From the key rank of a visible key to its slot in the paged cache. A cursor belongs to one
// thread, and reads intervals and block table, never keys.
#ifndef STRUCTATTN_KERNELS_ATTENTION_KEY_CURSOR_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_KEY_CURSOR_CUH_

#include "kernels/attention/attention.h"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

__device__ inline QueryTile LoadTile(const QueryTile* from) {
  return {.sequence = LoadGlobal(&from->sequence),
          .row_begin = LoadGlobal(&from->row_begin),
          .query_begin = LoadGlobal(&from->query_begin),
          .query_count = LoadGlobal(&from->query_count),
          .interval_begin = LoadGlobal(&from->interval_begin),
          .interval_end = LoadGlobal(&from->interval_end),
          .keys_before = LoadGlobal(&from->keys_before),
          .sees_itself = LoadGlobal(&from->sees_itself),
          .partial_begin = LoadGlobal(&from->partial_begin)};
}

// Takes key ranks that never decrease and that the query tile has. A key rank costs amortised O(1),
// a query tile O(intervals).
class KeyCursor {
 public:
  __device__ KeyCursor(const AttentionParams& p, const QueryTile& tile)
      : next_(p.intervals + tile.interval_begin),
        blocks_(p.block_tables + int64_t{tile.sequence} * p.block_table_stride) {}

  // The row of one KV head in a cache of [blocks, kv_heads, block_size] rows. It fits 31 bits for
  // any cache below 2^31 rows (256 GiB a layer at head_dim 64).
  __device__ int RowOf(const KvLayerView& kv, int kv_head, int rank) {
    while (rank >= end_rank_) {
      const int begin = LoadGlobal(&next_->begin);
      const int length = LoadGlobal(&next_->end) - begin;
      // fault: interval_bound_off_by_one
      shift_ = begin - end_rank_;
      end_rank_ += length;
      ++next_;
    }
    const int key = rank + shift_;
    const int block = key / kv.block_size;
    const int offset = key - block * kv.block_size;
    // fault: block_table_past_the_end
    return (LoadGlobal(blocks_ + block) * kv.kv_heads + kv_head) * kv.block_size + offset;
  }

 private:
  const KeyInterval* next_;  // Follows the interval that holds the last key rank.
  const int32_t* blocks_;
  int end_rank_ = 0;  // That interval ends before this key rank.
  int shift_ = 0;     // Slot minus key rank in that interval.
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_KEY_CURSOR_CUH_
