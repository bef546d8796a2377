// One key tile of 64 keys in shared memory, and what a warp computes with it on tensor cores:
// scores of its query rows, and the weighted sum of values. There is no paging, structure or
// softmax here.
//
// A lane holds rows g and g + 8 of a fragment's 16 rows, and columns 2t and 2t + 1 of eight, with
// g = lane / 4 and t = lane % 4 (PTX ISA, m16n8k16).
#ifndef STRUCTATTN_KERNELS_ATTENTION_FLASH_TILE_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_FLASH_TILE_CUH_

#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// The place of 16-byte chunks in a key tile [64 keys, kDims] of 16-bit elements, such that eight
// chunks of one column in consecutive rows, and eight of one row, lie in different banks. Rows of a
// multiple of 128 bytes are swizzled by XOR with the row, others padded to an odd number of chunks.
template <int kDims>
struct TileLayout {
  static constexpr int kKeys = 64;
  static constexpr int kChunks = kDims / 8;
  static constexpr bool kSwizzled = kDims % 64 == 0;
  // fault: no_padding
  static constexpr int kRowBytes = (kSwizzled ? kChunks : kChunks | 1) * 16;
  static constexpr int kBytes = kKeys * kRowBytes;

  static __device__ int Offset(int key, int chunk) {
    // fault: no_swizzle
    return key * kRowBytes + (kSwizzled ? chunk ^ (key & 7) : chunk) * 16;
  }
  // Offset(key, chunk + 2 * pairs), from Offset(key, chunk) with an even chunk or the one after it.
  static __device__ int Plus(int offset, int pairs) {
    return kSwizzled ? offset ^ (pairs * 32) : offset + pairs * 32;
  }
};

// [kBands x 16 rows, kDims] as the left operand, rounded to the storage type.
template <int kDims, int kBands>
struct QueryFragments {
  uint32_t a[kBands][kDims / 16][4];
};

// [kBands x 16 rows, 64 keys]
template <int kBands>
struct ScoreFragments {
  float c[kBands][8][4];
};

// [kBands x 16 rows, kDims]
template <int kDims, int kBands>
struct OutputFragments {
  float c[kBands][kDims / 8][4];
};

// Computes the scores of the keys in the key tile at shared offset `keys`.
template <typename T, int kDims, int kBands>
__device__ inline void Scores(const QueryFragments<kDims, kBands>& query, int keys,
                              ScoreFragments<kBands>& scores) {
  using Layout = TileLayout<kDims>;
  // Matrices 0 and 1 have eight keys and both halves of 16 dims, 2 and 3 the next eight keys.
  const int key = LaneIndex() / 16 * 8 + LaneIndex() % 8;
  const int first = Layout::Offset(key, LaneIndex() / 8 % 2);
  scores = {};
#pragma unroll
  for (int k = 0; k < kDims / 16; ++k) {
    const int offset = keys + Layout::Plus(first, k);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      LoadMatrices(offset + n * 8 * Layout::kRowBytes, b);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        // fault: key_fragments_swapped
        MultiplyAccumulate<T>(scores.c[band][n], query.a[band][k], b[0], b[1]);
        MultiplyAccumulate<T>(scores.c[band][n + 1], query.a[band][k], b[2], b[3]);
      }
    }
  }
}

// Columns [16 k, 16 k + 16) of a band's weights as a left operand, rounded to T.
template <typename T, int kBands>
__device__ inline void WeightFragment(const ScoreFragments<kBands>& weights, int band, int k,
                                      uint32_t (&a)[4]) {
  const float(&low)[4] = weights.c[band][2 * k];
  const float(&high)[4] = weights.c[band][2 * k + 1];
  a[0] = NarrowPair<T>(low[0], low[1]);
  // fault: weight_fragments_swapped
  a[1] = NarrowPair<T>(low[2], low[3]);
  a[2] = NarrowPair<T>(high[0], high[1]);
  a[3] = NarrowPair<T>(high[2], high[3]);
}

// Adds the values in the key tile at shared offset `values`, weighted by `weights` rounded to T.
template <typename T, int kDims, int kBands>
__device__ inline void AddValues(const ScoreFragments<kBands>& weights, int values,
                                 OutputFragments<kDims, kBands>& output) {
  using Layout = TileLayout<kDims>;
  // Matrices 0 and 1 have 16 keys of eight dims, 2 and 3 the same keys of the next eight dims.
  const int key = LaneIndex() % 16;
  const int first = Layout::Offset(key, LaneIndex() / 16);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    uint32_t a[kBands][4];
#pragma unroll
    for (int band = 0; band < kBands; ++band) WeightFragment<T>(weights, band, k, a[band]);
#pragma unroll
    for (int n = 0; n < kDims / 8; n += 2) {
      uint32_t b[4];
      // fault: values_not_transposed
      LoadMatricesTransposed(values + Layout::Plus(first, n / 2) + k * 16 * Layout::kRowBytes, b);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        // fault: value_fragments_swapped
        MultiplyAccumulate<T>(output.c[band][n], a[band], b[0], b[1]);
        MultiplyAccumulate<T>(output.c[band][n + 1], a[band], b[2], b[3]);
      }
    }
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_FLASH_TILE_CUH_
