// The vocabulary of attention_bf16-inl.h: what its Engines are given, the exponential, and a row's
// scores and values as vectors. Everything here has internal linkage, and no function of another
// header is ever compiled for AVX512_BF16: all headers are included before the attributes are
// pushed.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_VECTORS_INL_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_VECTORS_INL_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "hwy/base.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/dtype.h"

// The instruction sets that everything between HWY_PUSH_ATTRIBUTES and HWY_POP_ATTRIBUTES may use.
#define STRUCTATTN_BF16_ATTRIBUTES \
  "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,prfchw"

HWY_PUSH_ATTRIBUTES(STRUCTATTN_BF16_ATTRIBUTES)

namespace structattn {
namespace {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kChunkKeys = 256;
inline constexpr int kPanelRows = 96;
inline constexpr int kPieceKeys = 64;
inline constexpr int kRowsAhead = 64;
inline constexpr int kPairDims = 16;  // Sixteen pairs fill a vector.
// Strides between rows are skewed so that rows do not fight for the same cache sets. They are the
// pairs of a row of queries or weights, the floats of a row of scores (which may reach one key tile
// over), and the pairs of a column of packed V.
inline constexpr int kRowPairs = (kChunkKeys + 32) / 2;
inline constexpr int kScoreStride = kChunkKeys + 2 * kTileKeys;
inline constexpr int kValueStride = (kChunkKeys / 2 + 1) * kPairDims;
inline constexpr __mmask16 kAllLanes = 0xffff;

// Two bfloat16 that one instruction multiplies and adds.
using Pair = uint32_t;

// One KV head of a layer. The pointers are moved to the head within block 0, and strides count
// elements.
struct Head {
  const Bfloat16* key;    // [head_dim / 2][block_size] pairs of dims in a block.
  const Bfloat16* value;  // [block_size][head_dim] in a block.
  int64_t block_stride;
  int32_t block_size;
  int32_t head_dim;

  const Pair* Keys(const KeyTile& key_tile) const {
    return reinterpret_cast<const Pair*>(key + key_tile.block * block_stride) + key_tile.offset;
  }
  const Bfloat16* Values(const KeyTile& key_tile) const {
    return value + key_tile.block * block_stride + int64_t{key_tile.offset} * head_dim;
  }
};

// Rows of queries and the key tiles that they meet. The score of a key rank goes to
// scores[row][rank - rank_begin], where rows are kScoreStride apart.
struct ScoreArgs {
  const Head* head;
  const Pair* query;  // [rows][kRowPairs]
  const KeyTile* key_tiles;
  int key_tile_count;
  int key_tiles_left;  // key_tile_count and those of later chunks.
  int32_t rank_begin;
  float* scores;
  int rows;
};

// sums[row][dim] += weights[row] x values over `keys` key ranks. Weights and values are padded by
// zeros to a multiple of the Engine's depth.
struct ValueArgs {
  const Pair* weights;  // [rows][kRowPairs]
  const Pair* values;   // [head_dim / kPairDims][kValueStride]: [pair of key ranks][kPairDims]
  float* sums;          // [rows][head_dim]
  int head_dim;
  int keys;
  int rows;
};

// Writes the lanes of `scores` that `visible` names, packed. Clobbers up to kTileKeys floats.
inline void StoreVisible(__m512 scores, uint32_t visible, float* to) {
  if (visible != 0xffff) scores = _mm512_maskz_compress_ps(static_cast<__mmask16>(visible), scores);
  _mm512_storeu_ps(to, scores);
}

// 2^x for x <= 0 within a relative error of 2^-13; 0 for -infinity, NaN for NaN. The polynomial has
// the least largest relative error of its degree over [0, 1], found by Remez' exchange.
inline __m512 Exp2(__m512 x) {
  constexpr int kFloor = 0x09;
  const __m512 r = _mm512_maskz_reduce_ps(kAllLanes, x, kFloor);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.07802452147006989f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.22606715559959412f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6958335638046265f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.9999251961708069f));
  return _mm512_maskz_scalef_ps(kAllLanes, p, x);  // p 2^floor(x)
}

inline __mmask16 FirstLanes(int count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << std::max(count, 0)) - 1);
}

// The two halves of a vector.
inline __m256 Low(__m512 x) { return _mm512_maskz_extractf32x8_ps(0xff, x, 0); }
inline __m256 High(__m512 x) { return _mm512_maskz_extractf32x8_ps(0xff, x, 1); }

inline float MaxOfLanes(__m512 x) {
  const __m256 eight = _mm256_max_ps(Low(x), High(x));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline float SumOfLanes(__m512 x) {
  const __m256 eight = _mm256_add_ps(Low(x), High(x));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The largest score. It may or may not be NaN when a score is: the weights are NaN in either case.
inline float Maximum(const float* scores, int count) {
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 a = lowest;
  __m512 b = lowest;
  int i = 0;
  for (; i + 32 <= count; i += 32) {
    a = _mm512_maskz_max_ps(kAllLanes, a, _mm512_loadu_ps(scores + i));
    b = _mm512_maskz_max_ps(kAllLanes, b, _mm512_loadu_ps(scores + i + 16));
  }
  for (; i < count; i += 16) {
    a = _mm512_maskz_max_ps(kAllLanes, a,
                            _mm512_mask_loadu_ps(lowest, FirstLanes(count - i), scores + i));
  }
  return MaxOfLanes(_mm512_maskz_max_ps(kAllLanes, a, b));
}

// Computes weights [0, keys) of a row, writes zeros up to the next multiple of 32, and returns
// `sums` with the weights added to its lanes.
inline __m512 Weights(const float* scores, int keys, __m512 log2_scale, __m512 maximum,
                      Bfloat16* weights, __m512 sums) {
  const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  int i = 0;
  for (; i + 32 <= keys; i += 32) {
    const __m512 low = Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), log2_scale, maximum));
    const __m512 high =
        Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), log2_scale, maximum));
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(weights + i, reinterpret_cast<__m512i>(both));
    sums = _mm512_dpbf16_ps(sums, both, ones);
  }
  if (i < keys) {
    const __m512 low = _mm512_maskz_mov_ps(
        FirstLanes(keys - i),
        Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), log2_scale, maximum)));
    const __m512 high = _mm512_maskz_mov_ps(
        FirstLanes(keys - i - 16),
        Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), log2_scale, maximum)));
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(weights + i, reinterpret_cast<__m512i>(both));
    sums = _mm512_dpbf16_ps(sums, both, ones);
  }
  return sums;
}

// How many rows of values ahead of its use a row is asked for, which is some 8 KB. It goes to L2,
// because memory takes longer than the few misses that L1 keeps in flight allow.
inline int RowsAhead(int head_dim) { return std::min(kRowsAhead, 4096 / head_dim / 2 * 2); }

inline void PrefetchRow(const Bfloat16* row, int head_dim) {
  for (int dim = 0; dim < head_dim; dim += 32) _mm_prefetch(row + dim, _MM_HINT_T1);
}

// Two rows of 32 dims, interleaved: `low` has the pairs of the first 16 dims, `high` the others.
struct Interleaved {
  __m512i low;
  __m512i high;
};

inline Interleaved Interleave(__m512i even, __m512i odd) {
  alignas(64) static constexpr uint16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static constexpr uint16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21,
                                                     53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                                     27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  return {_mm512_permutex2var_epi16(even, _mm512_load_si512(kLow), odd),
          _mm512_permutex2var_epi16(even, _mm512_load_si512(kHigh), odd)};
}

// Packs the even and the odd row of a pair of key ranks: kPairDims pairs go to each column.
inline void PackPair(const Bfloat16* even, const Bfloat16* odd, int head_dim, Pair* to) {
  int dim = 0;
  for (; dim + 32 <= head_dim; dim += 32, to += 2 * kValueStride) {
    const Interleaved pairs =
        Interleave(_mm512_loadu_si512(even + dim), _mm512_loadu_si512(odd + dim));
    _mm512_store_si512(to, pairs.low);
    _mm512_store_si512(to + kValueStride, pairs.high);
  }
  if (dim < head_dim) {
    const Interleaved pairs = Interleave(_mm512_maskz_loadu_epi16(0xffff, even + dim),
                                         _mm512_maskz_loadu_epi16(0xffff, odd + dim));
    _mm512_store_si512(to, pairs.low);
  }
}

inline bool AllFinite(const Bfloat16* row, int head_dim) {
  const __m256i exponent = _mm256_set1_epi16(0x7f80);
  __mmask16 bad = 0;
  for (int dim = 0; dim < head_dim; dim += 16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + dim));
    bad |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(bits, exponent), exponent);
  }
  return bad == 0;
}

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_VECTORS_INL_H_
