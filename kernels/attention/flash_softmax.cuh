// The running softmax of a warp's rows over key tiles of 64 keys (Milakov & Gimelshein 2018; Dao
// 2022). It works on registers alone and never touches memory.
#ifndef STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_

#include "kernels/attention/flash_tile.cuh"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// The softmax of the lane's rows, where 2 b and 2 b + 1 are rows g and g + 8 of band b. Scores are
// in units of log2, that is q k^T x scale x log2(e).
template <int kBands>
struct SoftmaxState {
  float largest[2 * kBands];
  float sum[2 * kBands];  // Covers the columns that this lane holds.

  __device__ SoftmaxState() {
#pragma unroll
    for (int row = 0; row < 2 * kBands; ++row) {
      largest[row] = -INFINITY;
      sum[row] = 0.0f;
    }
  }
};

// Hides what the rows do not see. The lane's row i sees the keys of the key tile before seen[i] -
// begin.
template <int kBands>
__device__ inline void MaskScores(const int (&seen)[2 * kBands], int begin,
                                  ScoreFragments<kBands>& scores) {
  const int column = begin + 2 * (LaneIndex() % 4);
#pragma unroll
  for (int band = 0; band < kBands; ++band) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // fault: mask_off_by_one
        if (n * 8 + column + i % 2 >= seen[2 * band + i / 2]) scores.c[band][n][i] = -INFINITY;
      }
    }
  }
}

// The largest value of a row within the four lanes that hold it.
__device__ inline float QuadMax(float value) {
  value = fmaxf(value, ShuffleXor(value, 1));
  return fmaxf(value, ShuffleXor(value, 2));
}

// The sum of a row over the four lanes that hold it.
__device__ inline float QuadSum(float value) {
  value += ShuffleXor(value, 1);
  // fault: sum_of_two_lanes_only
  return value + ShuffleXor(value, 2);
}

// Replaces scores by weights exp2(score x factor - largest), updates the state and scales the
// output so far to the new largest score. With kMasked, a row may have seen nothing yet, and
// -inf - -inf would be NaN.
template <bool kMasked, int kDims, int kBands>
__device__ inline void UpdateSoftmax(float factor, ScoreFragments<kBands>& scores,
                                     SoftmaxState<kBands>& state,
                                     OutputFragments<kDims, kBands>& output) {
#pragma unroll
  for (int row = 0; row < 2 * kBands; ++row) {
    float(&c)[8][4] = scores.c[row / 2];
    const int first = row % 2 * 2;  // The row has this column of a fragment, and the next.
    float largest = fmaxf(c[0][first], c[0][first + 1]);
#pragma unroll
    for (int n = 1; n < 8; ++n) largest = fmaxf(largest, fmaxf(c[n][first], c[n][first + 1]));
    largest = fmaxf(state.largest[row], QuadMax(largest) * factor);
    const float base = kMasked && largest == -INFINITY ? 0.0f : largest;
    const float keep = Exp2(state.largest[row] - base);
    state.largest[row] = largest;
    float sum = state.sum[row] * keep;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = first; i < first + 2; ++i) {
        c[n][i] = Exp2(fmaf(c[n][i], factor, -base));
        sum += c[n][i];
      }
    }
    state.sum[row] = sum;
    // fault: fragment_past_the_end, output_not_rescaled
#pragma unroll
    for (int n = 0; n < kDims / 8; ++n) {
      output.c[row / 2][n][first] *= keep;
      output.c[row / 2][n][first + 1] *= keep;
    }
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_FLASH_SOFTMAX_CUH_
