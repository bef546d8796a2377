// Sums and the like over all threads of a thread block, in an order that never changes. A reduction
// costs one barrier and a few bytes of shared memory.
#ifndef STRUCTATTN_KERNELS_CUDA_REDUCE_CUH_
#define STRUCTATTN_KERNELS_CUDA_REDUCE_CUH_

#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// All threads of the thread block make one, with the same offset, and make each call in uniform
// control flow. Every thread gets the result.
template <typename V, int kThreads>
class BlockReduction {
 public:
  static constexpr int kWarps = kThreads / kWarpSize;
  static_assert(kThreads % kWarpSize == 0);
  // There are two places, which take turns: a thread that writes one has passed the barrier that
  // ends all reading of it.
  static constexpr int kSharedBytes = 2 * kWarps * sizeof(V);

  // Uses kSharedBytes of shared memory from `offset`, aligned to V.
  __device__ explicit BlockReduction(int offset) : offset_(offset) {}

  // combine(a, b) is associative up to rounding, and commutative exactly.
  template <typename Combine>
  __device__ V Of(V value, const Combine& combine) {
#pragma unroll
    for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
      value = combine(value, ShuffleXor(value, lanes));
    }
    const int place = offset_ + turn_ * kWarps * static_cast<int>(sizeof(V));
    turn_ ^= 1;
    if (LaneIndex() == 0) StoreShared(place + WarpIndex() * static_cast<int>(sizeof(V)), value);
    BlockBarrier();
    V result = LoadShared<V>(place);
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) {
      result = combine(result, LoadShared<V>(place + warp * static_cast<int>(sizeof(V))));
    }
    return result;
  }

  __device__ V Sum(V value) {
    return Of(value, [](V a, V b) { return a + b; });
  }
  __device__ V Max(V value) {
    return Of(value, [](V a, V b) { return a > b ? a : b; });
  }

 private:
  const int offset_;
  int turn_ = 0;
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_CUDA_REDUCE_CUH_
