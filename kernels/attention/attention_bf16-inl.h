// Attention over a bfloat16 cache by one-pass ("flash") softmax: the frame around an Engine's two
// matrix products. It is compiled for AVX512_BF16, and everything here has internal linkage.
//
// A row meets its visible keys in chunks of kChunkKeys, counted by key rank from its first one:
//
//   scores   S = q K^T                the cache's layout is what the products take: nothing packed
//   maximum  m' = max(m, ceil(c max S)), c = scale x log2(e)
//   weights  P = 2^(c S - m')         rounded to bfloat16
//   sums     l = l 2^(m - m') + sum P;  o = o 2^(m - m') + P V
//
// and ends as o / l. As m is a whole number, the rescaling is exact, so that only the order of the
// multiply-adds matters. V is added in pairs of key ranks (and multiples of them that an Engine
// takes at once), K in pairs of dims, so the bits of a row do not depend on what surrounds it.
//
//            chunk of keys -> (K from the cache, V packed once per panel into pairs of key ranks)
//          +----------------------+
//   band 0 | S -> P -> o += P V   |   a band of rows keeps its S and P in L1;
//   band 1 | S -> P -> o += P V   |   a panel of bands shares the chunk of K and V in L2
//    ...   +----------------------+
//
// The scores of keys that a row does not see are computed and dropped. Their weights are zero, and
// zero times a finite value adds nothing. Where a value that some rows of the panel do not see is
// not finite, each row gets its values cut off at its own last key.

#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INL_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INL_H_

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "hwy/base.h"
#include "kernels/attention/attention_bf16_vectors-inl.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/check.h"
#include "kernels/dtype.h"

HWY_PUSH_ATTRIBUTES(STRUCTATTN_BF16_ATTRIBUTES)

namespace structattn {
namespace {

// The memory that one thread keeps between items, as large as the largest head_dim so far needs.
template <class Engine>
struct Scratch {
  // Engines may read and clobber rows up to the next multiple of kRowMultiple.
  static constexpr int kRows = kPanelRows + Engine::kRowMultiple;
  static constexpr int kBand = Engine::kBandRows + Engine::kRowMultiple;

  std::vector<KeyTile> key_tiles;
  std::vector<int32_t> row_keys;
  const Bfloat16* rows[kChunkKeys + kRowsAhead + kTileKeys];  // Rows of V, by key rank in a chunk.
  alignas(64) Pair query[kRows * kRowPairs];
  alignas(64) Pair weights[kBand * kRowPairs];
  alignas(64) float scores[kBand * kScoreStride];
  alignas(64) float over[kRows * kTileKeys];  // Scores of key ranks behind the chunk.
  alignas(64) float weight_sums[kRows * 16];  // l, in lanes.
  float maximum[kRows];                       // m
  alignas(64) Bfloat16 zeros[kMaxHeadDim];
  hwy::AlignedFreeUniquePtr<Pair[]> values;   // [head_dim / kPairDims][kValueStride]
  hwy::AlignedFreeUniquePtr<float[]> sums;    // o: [rows][head_dim]
  hwy::AlignedFreeUniquePtr<float[]> single;  // [1 + Engine::kRowMultiple][head_dim]

  void Reserve(int64_t head_dim) {
    if (head_dim <= head_dim_) return;
    head_dim_ = head_dim;
    values = hwy::AllocateAligned<Pair>((head_dim + kPairDims - 1) / kPairDims * kValueStride);
    sums = hwy::AllocateAligned<float>(kRows * head_dim);
    single = hwy::AllocateAligned<float>((1 + Engine::kRowMultiple) * head_dim);
    STRUCTATTN_CHECK(values != nullptr && sums != nullptr && single != nullptr);
  }

 private:
  int64_t head_dim_ = 0;
};

// An Engine has kRowMultiple (rows are cut into multiples of it), kBandRows, Begin() and End()
// around the work of an item, Scores(ScoreArgs), AddValues(ValueArgs), and AddListedValues, which
// takes values as they lie, for up to kDirectRows rows and a multiple of 32 dims.
template <class Engine>
class Panel {
 public:
  Panel(const AttentionItem& item, Scratch<Engine>& scratch)
      : params_(*item.params), tile_(*item.tile), kv_head_(item.kv_head), s_(scratch) {
    const KvLayerView& kv = params_.kv;
    const int64_t head_stride = int64_t{kv.head_dim} * kv.block_size;
    head_ = {.key = static_cast<const Bfloat16*>(kv.key) + kv_head_ * head_stride,
             .value = static_cast<const Bfloat16*>(kv.value) + kv_head_ * head_stride,
             .block_stride = kv.kv_heads * head_stride,
             .block_size = kv.block_size,
             .head_dim = kv.head_dim};
    ratio_ = params_.heads / kv.kv_heads;
    log2_scale_ = params_.scale * 1.44269504088896340736f;
  }

  // Computes and stores rows [row_begin, row_begin + rows) of the item's tile, at most kPanelRows.
  void Run(int row_begin, int rows) {
    row_begin_ = row_begin;
    rows_ = rows;
    const int bands = (rows + Engine::kBandRows - 1) / Engine::kBandRows;
    const int even = (rows + bands - 1) / bands;
    band_rows_ = (even + Engine::kRowMultiple - 1) / Engine::kRowMultiple * Engine::kRowMultiple;
    Prefetch();
    for (int row = 0; row < rows; ++row) LoadQuery(row);
    std::fill_n(s_.maximum, rows, -std::numeric_limits<float>::infinity());
    std::memset(s_.weight_sums, 0, sizeof(float) * 16 * rows);
    std::memset(s_.sums.get(), 0, sizeof(float) * rows * head_.head_dim);
    const int32_t total = RowKeys(rows - 1);
    const KeyTile* key_tiles = s_.key_tiles.data();
    for (int32_t begin = 0; begin < total; begin += kChunkKeys) {
      key_tiles = RunChunk(begin, std::min(total - begin, kChunkKeys), key_tiles);
    }
    for (int row = 0; row < rows; ++row) Store(row);
  }

 private:
  struct Rows {
    int begin;
    int count;
  };

  int32_t RowKeys(int row) const { return s_.row_keys[(row_begin_ + row) / ratio_]; }

  // Where a row begins in the query and output tensors, in elements.
  int64_t RowOffset(int row) const {
    const int64_t token = tile_.row_begin + (row_begin_ + row) / ratio_;
    const int head = kv_head_ * ratio_ + (row_begin_ + row) % ratio_;
    return (token * params_.heads + head) * head_.head_dim;
  }

  // Asks L2 for what short prompts would wait for, which is the first chunk of keys and values, and
  // the output.
  HWY_INLINE void Prefetch() const {  // Inline, or GCC takes it for a function without effect.
    constexpr int kLine = 64;
    const int tile_lines = kTileKeys * head_.head_dim * static_cast<int>(sizeof(Bfloat16)) / kLine;
    const int32_t keys = std::min(RowKeys(rows_ - 1), kChunkKeys);
    for (const KeyTile& key_tile : s_.key_tiles) {
      if (key_tile.rank >= keys) break;
      const Pair* key = head_.Keys(key_tile);
      const char* value = reinterpret_cast<const char*>(head_.Values(key_tile));
      for (int line = 0; line < tile_lines; ++line) {
        _mm_prefetch(key + int64_t{line} * head_.block_size, _MM_HINT_T1);
        _mm_prefetch(value + line * kLine, _MM_HINT_T1);
      }
    }
    const auto element = static_cast<int64_t>(ByteSize(params_.output_dtype));
    for (int row = 0; row < rows_; ++row) {
      const char* output = static_cast<const char*>(params_.output) + RowOffset(row) * element;
      for (int64_t byte = 0; byte < head_.head_dim * element; byte += kLine) {
        __builtin_prefetch(output + byte, 1, 2);
      }
    }
  }

  void LoadQuery(int row) {
    const float* from = params_.query + RowOffset(row);
    Pair* to = s_.query + row * kRowPairs;
    for (int dim = 0; dim < head_.head_dim; dim += 16) {
      const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + dim));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + dim / 2),
                          reinterpret_cast<__m256i>(rounded));
    }
  }

  // Meets key ranks [begin, begin + keys), which start in *key_tile or behind it. Returns where the
  // next chunk starts.
  const KeyTile* RunChunk(int32_t begin, int keys, const KeyTile* key_tile) {
    const KeyTile* next = ListValues(begin, keys, key_tile);
    // Values that only some rows see must not meet the zero weights of the others.
    bool finite = true;
    for (int n = std::max(0, RowKeys(0) - begin); n < keys && finite; ++n) {
      finite = AllFinite(s_.rows[n], head_.head_dim);
    }
    const KeyTile* first = key_tile->rank < begin ? key_tile + 1 : key_tile;
    const bool in_pieces = rows_ <= band_rows_;
    if (finite && !in_pieces) PackValues(0, keys);
    for (int band = 0; band < rows_; band += band_rows_) {
      const int rows = std::min(band_rows_, rows_ - band);
      const int32_t seen = RowKeys(band + rows - 1) - begin;
      if (seen <= 0) continue;
      BandScores({band, rows}, first, begin, seen);
      const int band_keys = std::min(seen, kChunkKeys);
      for (int row = band; row < band + rows; ++row) BandWeights(band, row, begin, band_keys);
      if (!finite) {
        for (int row = band; row < band + rows; ++row) AddOwnValues(band, row, begin);
      } else if (in_pieces) {
        AddListedValues(rows, band_keys);
      } else {
        AddValues(s_.weights, s_.sums.get(), {.begin = band, .count = rows}, band_keys);
      }
    }
    return next;
  }

  // Fills rows[] with the chunk's values by key rank, and with those of kRowsAhead key ranks behind
  // it as far as there are any. Returns the key tile that the next key rank is in.
  const KeyTile* ListValues(int32_t begin, int keys, const KeyTile* key_tile) {
    const int64_t head_dim = head_.head_dim;
    // The bytes from the first value of a key tile to its first and to its last eight values.
    const int64_t stride = head_dim * static_cast<int64_t>(sizeof(Bfloat16));
    const __m512i low =
        _mm512_mullo_epi64(_mm512_set1_epi64(stride), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(8 * stride));
    const KeyTile* const end = s_.key_tiles.data() + s_.key_tiles.size();
    const KeyTile* next = end;
    int32_t rank = key_tile->rank - begin;
    for (; key_tile != end && rank < keys + kRowsAhead; ++key_tile) {
      const Bfloat16* values = head_.Values(*key_tile);
      uint32_t visible = key_tile->visible;
      for (; rank < 0; ++rank) visible &= visible - 1;
      if (visible == 0xffff) {
        const __m512i begin_of = _mm512_set1_epi64(reinterpret_cast<int64_t>(values));
        _mm512_storeu_si512(static_cast<void*>(s_.rows + rank), _mm512_add_epi64(begin_of, low));
        _mm512_storeu_si512(static_cast<void*>(s_.rows + rank + 8),
                            _mm512_add_epi64(begin_of, high));
        rank += kTileKeys;
        visible = 0;
      }
      for (; visible != 0; ++rank, visible &= visible - 1) {
        s_.rows[rank] = values + std::countr_zero(visible) * head_dim;
      }
      if (next == end && rank >= keys) next = key_tile + (rank == keys);
    }
    for (; rank < keys + kRowsAhead; ++rank) s_.rows[rank] = s_.zeros;
    return next;
  }

  // Packs listed values [first, first + keys) into pairs of key ranks, with zeros up to the next
  // multiple of 32.
  void PackValues(int first, int keys) {
    const Bfloat16** rows = s_.rows + first;
    const int whole = keys / 2 * 2;
    Pair* to = s_.values.get();
    const int ahead = RowsAhead(head_.head_dim);
    for (int n = 0; n < whole; n += 2, to += kPairDims) {
      PrefetchRow(rows[n + ahead], head_.head_dim);
      PrefetchRow(rows[n + ahead + 1], head_.head_dim);
      PackPair(rows[n], rows[n + 1], head_.head_dim, to);
    }
    const Bfloat16* last = whole < keys ? rows[whole] : s_.zeros;
    for (int n = whole; n < (keys + 31) / 32 * 32; n += 2, to += kPairDims, last = s_.zeros) {
      PackPair(last, s_.zeros, head_.head_dim, to);
    }
  }

  // Computes the scores of a band's rows and key ranks [begin, begin + seen), as far as their key
  // tiles start in this chunk.
  void BandScores(Rows band, const KeyTile* first, int32_t begin, int32_t seen) {
    const int32_t end = begin + std::min(seen, kChunkKeys);
    const KeyTile* last = first;
    const KeyTile* all = s_.key_tiles.data() + s_.key_tiles.size();
    while (last != all && last->rank < end) ++last;
    for (int row = 0; row < band.count && begin > 0; ++row) {
      _mm512_storeu_ps(s_.scores + row * kScoreStride,
                       _mm512_load_ps(s_.over + (band.begin + row) * kTileKeys));
    }
    Engine::Scores({.head = &head_,
                    .query = s_.query + int64_t{band.begin} * kRowPairs,
                    .key_tiles = first,
                    .key_tile_count = static_cast<int>(last - first),
                    .key_tiles_left = static_cast<int>(all - first),
                    .rank_begin = begin,
                    .scores = s_.scores,
                    .rows = band.count});
    for (int row = 0; row < band.count && seen > kChunkKeys; ++row) {
      _mm512_store_ps(s_.over + (band.begin + row) * kTileKeys,
                      _mm512_loadu_ps(s_.scores + row * kScoreStride + kChunkKeys));
    }
  }

  // Turns the scores of one row into weights, and rescales what the row has summed to the new
  // maximum.
  void BandWeights(int band, int row, int32_t begin, int band_keys) {
    const int keys = std::clamp(RowKeys(row) - begin, 0, kChunkKeys);
    auto* weights = reinterpret_cast<Bfloat16*>(s_.weights + (row - band) * kRowPairs);
    const int written = (keys + 31) / 32 * 32;
    const int padded = (band_keys + 31) / 32 * 32;
    if (written < padded) std::memset(weights + written, 0, sizeof(Bfloat16) * (padded - written));
    if (keys == 0) return;
    const float* scores = s_.scores + (row - band) * kScoreStride;
    const float old = s_.maximum[row];
    const float found = std::ceil(Maximum(scores, keys) * log2_scale_);
    const float maximum = found > old ? found : old;
    float* lanes = s_.weight_sums + row * 16;
    __m512 sums = _mm512_load_ps(lanes);
    if (maximum != old) {
      s_.maximum[row] = maximum;
      const __m512 shift = _mm512_set1_ps(old - maximum);
      sums = _mm512_maskz_scalef_ps(kAllLanes, sums, shift);
      float* own = s_.sums.get() + int64_t{row} * head_.head_dim;
      for (int dim = 0; dim < head_.head_dim; dim += 16) {
        _mm512_storeu_ps(own + dim,
                         _mm512_maskz_scalef_ps(kAllLanes, _mm512_loadu_ps(own + dim), shift));
      }
    }
    _mm512_store_ps(lanes, Weights(scores, keys, _mm512_set1_ps(log2_scale_),
                                   _mm512_set1_ps(maximum), weights, sums));
  }

  // Adds the packed values, weighted, to some rows of `sums`.
  void AddValues(const Pair* weights, float* sums, Rows rows, int keys) {
    Engine::AddValues({.weights = weights,
                       .values = s_.values.get(),
                       .sums = sums + int64_t{rows.begin} * head_.head_dim,
                       .head_dim = head_.head_dim,
                       .keys = keys,
                       .rows = rows.count});
  }

  // Adds the values of the only band. No other band needs them again, so they are packed piece by
  // piece, or not at all.
  void AddListedValues(int rows, int keys) {
    if constexpr (Engine::kDirectRows > 0) {
      if (rows <= Engine::kDirectRows && head_.head_dim % 32 == 0) {
        return Engine::AddListedValues(s_.rows, {.weights = s_.weights,
                                                 .values = nullptr,
                                                 .sums = s_.sums.get(),
                                                 .head_dim = head_.head_dim,
                                                 .keys = keys,
                                                 .rows = rows});
      }
    }
    for (int n = 0; n < keys; n += kPieceKeys) {
      const int piece = std::min(kPieceKeys, keys - n);
      PackValues(n, piece);
      AddValues(s_.weights + n / 2, s_.sums.get(), {.begin = 0, .count = rows}, piece);
    }
  }

  // Adds its own values alone to one row, for the sake of values that are not finite.
  void AddOwnValues(int band, int row, int32_t begin) {
    const int keys = std::clamp(RowKeys(row) - begin, 0, kChunkKeys);
    if (keys == 0) return;
    PackValues(0, keys);
    float* own = s_.sums.get() + int64_t{row} * head_.head_dim;
    std::memcpy(s_.single.get(), own, sizeof(float) * head_.head_dim);
    AddValues(s_.weights + (row - band) * kRowPairs, s_.single.get(), {.begin = 0, .count = 1},
              keys);
    std::memcpy(own, s_.single.get(), sizeof(float) * head_.head_dim);
  }

  // Divides and stores one row. A row that sees no key becomes zero. Padding could turn -0 into 0,
  // so adding zero makes both the same.
  void Store(int row) {
    const float* sums = s_.sums.get() + int64_t{row} * head_.head_dim;
    const float sum = SumOfLanes(_mm512_load_ps(s_.weight_sums + row * 16));
    const __m512 divisor = _mm512_set1_ps(RowKeys(row) > 0 ? sum : 1.0f);
    const int64_t offset = RowOffset(row);
    for (int dim = 0; dim < head_.head_dim; dim += 16) {
      const __m512 result =
          _mm512_add_ps(_mm512_div_ps(_mm512_loadu_ps(sums + dim), divisor), _mm512_setzero_ps());
      StoreOutput(result, offset + dim);
    }
  }

  void StoreOutput(__m512 result, int64_t at) {
    switch (params_.output_dtype) {
      case DType::kFloat32:
        _mm512_storeu_ps(static_cast<float*>(params_.output) + at, result);
        return;
      case DType::kBfloat16:
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<Bfloat16*>(params_.output) + at),
                            reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(result)));
        return;
      case DType::kFloat16:
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<Float16*>(params_.output) + at),
                            _mm512_maskz_cvtps_ph(kAllLanes, result, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
  }

  const AttentionParams& params_;
  const QueryTile& tile_;
  const int kv_head_;
  Scratch<Engine>& s_;
  Head head_;
  int ratio_;  // The number of query heads of one KV head.
  float log2_scale_;
  int row_begin_ = 0;
  int rows_ = 0;
  int band_rows_ = 0;
};

template <class Engine>
void RunItem(const AttentionItem& item) {
  thread_local const auto scratch = hwy::MakeUniqueAligned<Scratch<Engine>>();
  scratch->Reserve(item.params->kv.head_dim);
  CollectKeys(*item.params, *item.tile, &scratch->key_tiles, &scratch->row_keys);
  const int rows = item.row_end - item.row_begin;
  const int panels = (rows + kPanelRows - 1) / kPanelRows;
  Engine::Begin();
  Panel<Engine> panel(item, *scratch);
  for (int p = 0; p < panels; ++p) {
    const int begin = rows * p / panels;
    panel.Run(item.row_begin + begin, rows * (p + 1) / panels - begin);
  }
  Engine::End();
}

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INL_H_
