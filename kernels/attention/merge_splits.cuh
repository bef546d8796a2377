// Puts the partial results of a decode tile's splits together, in the order of the splits. This is
// the second half of split-KV decoding, and it never reads a key. Each (decode tile, query head)
// has one warp.
#ifndef STRUCTATTN_KERNELS_ATTENTION_MERGE_SPLITS_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_MERGE_SPLITS_CUH_

#include "kernels/attention/attention.h"
#include "kernels/attention/flash_attention.cuh"
#include "kernels/attention/key_cursor.cuh"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

template <typename T, int kDims>
struct MergeSplitsKernel {
  using Params = AttentionParams;
  static constexpr const char* kName = "attention (merge)";
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 0;
  static constexpr int kPairs = (kDims / 2 + kWarpSize - 1) / kWarpSize;  // Pairs of dims a lane.

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = BlocksFor(int64_t{p.generated_count} * p.heads, kWarps)};
  }

  // out = sum_s 2^(m_s - m) o_s / sum_s 2^(m_s - m) l_s with m = max m_s.
  static __device__ void Run(const Params& p) {
    const int64_t index = int64_t{BlockX()} * kWarps + WarpIndex();
    if (index >= int64_t{p.generated_count} * p.heads) return;  // All lanes agree.
    const QueryTile tile = LoadTile(p.generated + index / p.heads);
    const int head = static_cast<int>(index % p.heads);
    const int splits = (tile.keys() + kSplitKeys - 1) / kSplitKeys;
    const float* partial = p.partials + PartialOffset(p, tile.partial_begin, head);
    const int64_t stride = PartialOffset(p, 1, 0);
    float largest = -INFINITY;
    for (int s = 0; s < splits; ++s) largest = fmaxf(largest, LoadGlobal(partial + s * stride));
    float sum = 0.0f;
    FloatPair output[kPairs] = {};
    // fault: merge_without_the_last_split, merge_of_the_first_split_only, merge_weight_wrong
    for (int s = 0; s < splits; ++s) {
      const float* from = partial + s * stride;
      const float weight = Exp2(LoadGlobal(from) - largest);
      sum += weight * LoadGlobal(from + 1);
      AddPartial(from + 2, weight, output);
    }
    const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    T* to = static_cast<T*>(p.output) + (int64_t{tile.row_begin} * p.heads + head) * kDims;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = LaneIndex() + i * kWarpSize;
      if (pair >= kDims / 2) continue;
      StoreGlobal(reinterpret_cast<uint32_t*>(to + 2 * pair),
                  NarrowPair<T>(output[i].x * inverse, output[i].y * inverse));
    }
  }

  // A lane holds the pairs of dims lane, lane + 32, ...
  static __device__ void AddPartial(const float* from, float weight, FloatPair (&output)[kPairs]) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = LaneIndex() + i * kWarpSize;
      if (pair >= kDims / 2) continue;
      const FloatPair value = LoadGlobal(reinterpret_cast<const FloatPair*>(from) + pair);
      output[i].x = fmaf(weight, value.x, output[i].x);
      output[i].y = fmaf(weight, value.y, output[i].y);
    }
  }
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_MERGE_SPLITS_CUH_
