// The running softmax of a warp's 16 rows over tiles of 64 keys (Milakov & Gimelshein 2018; Dao
// 2022). Used by flash_attention.cuh between scores and values. Knows no memory.
#ifndef STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_

#include "kernels/attention/flash_tile.cuh"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// Of the lane's two rows, g and g + 8. Scores are in units of log2: q k^T x scale x log2(e).
struct SoftmaxState {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // Of the columns that this lane holds.
};

// Hides what the rows do not see: row i sees the first `seen[i]` keys of the tile.
__device__ inline void MaskScores(const int (&seen)[2], ScoreFragments& scores) {
  const int column = 2 * (LaneIndex() % 4);
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (n * 8 + column + i % 2 >= seen[i / 2]) scores.c[n][i] = -INFINITY;
    }
  }
}

// The largest value of a row within the four lanes that hold it.
__device__ inline float QuadMax(float value) {
  value = fmaxf(value, ShuffleXor(value, 1));
  return fmaxf(value, ShuffleXor(value, 2));
}

__device__ inline float QuadSum(float value) {
  value += ShuffleXor(value, 1);
  return value + ShuffleXor(value, 2);
}

// Replaces scores by weights exp2(score x factor - largest), updates the state and scales the
// output so far to the new largest score. kMasked: a row may have seen nothing yet, and -inf - -inf
// is NaN.
template <bool kMasked, int kDims>
__device__ inline void UpdateSoftmax(float factor, ScoreFragments& scores, SoftmaxState& state,
                                     OutputFragments<kDims>& output) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float largest = scores.c[0][2 * row];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      largest = fmaxf(largest, fmaxf(scores.c[n][2 * row], scores.c[n][2 * row + 1]));
    }
    largest = fmaxf(state.largest[row], QuadMax(largest) * factor);
    const float base = kMasked && largest == -INFINITY ? 0.0f : largest;
    const float keep = Exp2(state.largest[row] - base);
    state.largest[row] = largest;
    float sum = state.sum[row] * keep;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 2 * row; i < 2 * row + 2; ++i) {
        scores.c[n][i] = Exp2(fmaf(scores.c[n][i], factor, -base));
        sum += scores.c[n][i];
      }
    }
    state.sum[row] = sum;
#pragma unroll
    for (int n = 0; n < kDims / 8; ++n) {
      output.c[n][2 * row] *= keep;
      output.c[n][2 * row + 1] *= keep;
    }
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_
