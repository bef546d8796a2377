// Attention over a bfloat16 cache by one-pass ("flash") softmax: the frame around an Engine's two
// matrix products. Included by the attention_<isa>.cc files and by a test, between the pragmas that
// select AVX512_BF16, after attention_bf16_includes.h; so it includes nothing, and everything here
// has internal linkage.
//
// A row meets its visible keys in chunks of kChunkKeys, counted by rank from its first one:
//
//   scores   S = q K^T                the cache's layout is what the products take: nothing packed
//   maximum  m' = max(m, ceil(c max S)), c = scale x log2(e)
//   weights  P = 2^(c S - m')         rounded to bfloat16
//   sums     l = l 2^(m - m') + sum P;  o = o 2^(m - m') + P V
//
// and ends as o / l. As m is a whole number, the rescaling is exact, so that only the order of the
// multiply-adds matters, and that is by rank: pairs of ranks for V (and whole steps of an Engine),
// pairs of dims for K. Hence the bits of a row do not depend on what surrounds it.
//
//            chunk of keys -> (K from the cache, V packed once per panel into pairs of ranks)
//          +----------------------+
//   band 0 | S -> P -> o += P V   |   a band of rows keeps its S and P in L1;
//   band 1 | S -> P -> o += P V   |   a panel of bands shares the chunk of K and V in L2
//    ...   +----------------------+
//
// Keys that a row does not see: their scores are computed and dropped. Their weights are zero, and
// zero times a finite value adds nothing; where a value that some rows of the panel do not see is
// not finite, each row gets its values cut off at its own last key.

namespace structattn {
namespace {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kChunkKeys = 256;
inline constexpr int kPanelRows = 96;
inline constexpr int kPairDims = 16;  // Sixteen pairs fill a vector.
// Strides between rows, skewed so that rows do not fight for the same cache sets.
inline constexpr int kRowPairs = (kChunkKeys + 32) / 2;                // Of queries and weights.
inline constexpr int kScoreStride = kChunkKeys + 2 * kGroupKeys;       // Of scores: one group over.
inline constexpr int kValueStride = (kChunkKeys / 2 + 1) * kPairDims;  // Of columns of packed V.
inline constexpr __mmask16 kAllLanes = 0xffff;

// Two bfloat16 that are multiplied and added together.
using Pair = uint32_t;

// One KV head of a layer, moved to the head within block 0. Strides in elements.
struct Head {
  const Bfloat16* key;    // [head_dim / 2][block_size] pairs of dims in a block.
  const Bfloat16* value;  // [block_size][head_dim] in a block.
  int64_t block_stride;
  int32_t block_size;
  int32_t head_dim;

  const Pair* Keys(const KeyGroup& group) const {
    return reinterpret_cast<const Pair*>(key + group.block * block_stride) + group.offset;
  }
  const Bfloat16* Values(const KeyGroup& group) const {
    return value + group.block * block_stride + int64_t{group.offset} * head_dim;
  }
};

// Rows of queries against key groups: scores[row][rank - rank_begin], rows kScoreStride apart.
struct ScoreArgs {
  const Head* head;
  const Pair* query;  // [rows][kRowPairs]
  const KeyGroup* groups;
  int group_count;
  int32_t rank_begin;
  float* scores;
  int rows;
};

// sums[row][dim] += weights[row] x values over `keys` ranks, padded by zero weights and values to
// the Engine's step.
struct ValueArgs {
  const Pair* weights;  // [rows][kRowPairs]
  const Pair* values;   // [head_dim / kPairDims][kValueStride]: [pair of ranks][kPairDims].
  float* sums;          // [rows][head_dim]
  int head_dim;
  int keys;
  int rows;
};

// Writes the lanes of `scores` that `visible` names, packed. Clobbers up to kGroupKeys floats.
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

// NaN if any score is NaN, or not: the weights are NaN then in any case.
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

// Weights [0, keys) of a row, zero up to the next multiple of 32; adds them to `sums` in lanes.
inline __m512 Weights(const float* scores, int keys, __m512 log2_scale, __m512 maximum,
                      Bfloat16* weights, __m512 sums) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  int i = 0;
  for (; i + 32 <= keys; i += 32) {
    const __m512 low = Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), log2_scale, maximum));
    const __m512 high =
        Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), log2_scale, maximum));
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(weights + i, (__m512i)both);
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
    _mm512_storeu_si512(weights + i, (__m512i)both);
    sums = _mm512_dpbf16_ps(sums, both, ones);
  }
  return sums;
}

// The even and the odd row of a pair of ranks, dim by dim: kPairDims pairs to each column.
inline void PackPair(const Bfloat16* even, const Bfloat16* odd, int head_dim, Pair* to) {
  alignas(64) static constexpr uint16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                    37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                    11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static constexpr uint16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21,
                                                     53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                                     27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  const __m512i low = _mm512_load_si512(kLow);
  const __m512i high = _mm512_load_si512(kHigh);
  int dim = 0;
  for (; dim + 32 <= head_dim; dim += 32, to += 2 * kValueStride) {
    const __m512i a = _mm512_loadu_si512(even + dim);
    const __m512i b = _mm512_loadu_si512(odd + dim);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
    _mm512_store_si512(to + kValueStride, _mm512_permutex2var_epi16(a, high, b));
  }
  if (dim < head_dim) {
    const __m512i a = _mm512_maskz_loadu_epi16(0xffff, even + dim);
    const __m512i b = _mm512_maskz_loadu_epi16(0xffff, odd + dim);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
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

// What one thread keeps between items.
template <class Engine>
struct Scratch {
  // Engines may read and clobber whole steps of rows.
  static constexpr int kRows = kPanelRows + Engine::kRowStep;
  static constexpr int kBand = Engine::kBandRows + Engine::kRowStep;

  std::vector<KeyGroup> groups;
  std::vector<int32_t> row_keys;
  const Bfloat16* rows[kChunkKeys + 2 * kGroupKeys];  // Of V, by rank within a chunk.
  alignas(64) Pair values[kMaxHeadDim / kPairDims * kValueStride];
  alignas(64) Pair query[kRows * kRowPairs];
  alignas(64) Pair weights[kBand * kRowPairs];
  alignas(64) float scores[kBand * kScoreStride];
  alignas(64) float over[kRows * kGroupKeys];   // Scores of ranks behind the chunk.
  alignas(64) float weight_sums[kRows * 16];    // l, in lanes.
  alignas(64) float sums[kRows * kMaxHeadDim];  // o: [rows][head_dim]
  alignas(64) float single[(1 + Engine::kRowStep) * kMaxHeadDim];
  float maximum[kRows];  // m
  alignas(64) Bfloat16 zeros[kMaxHeadDim];
};

// An Engine has: kRowStep (rows are cut into multiples of it), kBandRows, Begin() and End() around
// the work of an item, Scores(ScoreArgs) and AddValues(ValueArgs).
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

  // Rows [row_begin, row_begin + rows) of the item's tile, at most kPanelRows.
  void Run(int row_begin, int rows) {
    row_begin_ = row_begin;
    rows_ = rows;
    const int bands = (rows + Engine::kBandRows - 1) / Engine::kBandRows;
    const int even = (rows + bands - 1) / bands;
    band_rows_ = (even + Engine::kRowStep - 1) / Engine::kRowStep * Engine::kRowStep;
    for (int row = 0; row < rows; ++row) LoadQuery(row);
    std::fill_n(s_.maximum, rows, -std::numeric_limits<float>::infinity());
    std::memset(s_.weight_sums, 0, sizeof(float) * 16 * rows);
    std::memset(s_.sums, 0, sizeof(float) * rows * head_.head_dim);
    const int32_t total = RowKeys(rows - 1);
    const KeyGroup* groups = s_.groups.data();
    for (int32_t begin = 0; begin < total; begin += kChunkKeys) {
      groups = RunChunk(begin, std::min(total - begin, kChunkKeys), groups);
    }
    for (int row = 0; row < rows; ++row) Store(row);
  }

 private:
  int32_t RowKeys(int row) const { return s_.row_keys[(row_begin_ + row) / ratio_]; }

  // Elements from the start of the query and output tensors.
  int64_t RowOffset(int row) const {
    const int64_t token = tile_.row_begin + (row_begin_ + row) / ratio_;
    const int head = kv_head_ * ratio_ + (row_begin_ + row) % ratio_;
    return (token * params_.heads + head) * head_.head_dim;
  }

  void LoadQuery(int row) {
    const float* from = params_.query + RowOffset(row);
    Pair* to = s_.query + row * kRowPairs;
    for (int dim = 0; dim < head_.head_dim; dim += 16) {
      const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + dim));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + dim / 2), (__m256i)rounded);
    }
  }

  // Ranks [begin, begin + keys), which start in *group or behind it. Returns where the next chunk
  // starts.
  const KeyGroup* RunChunk(int32_t begin, int keys, const KeyGroup* group) {
    const KeyGroup* next = ListValues(begin, keys, group);
    // Values that only some rows see must not meet the zero weights of the others.
    bool finite = true;
    for (int n = std::max(0, RowKeys(0) - begin); n < keys && finite; ++n) {
      finite = AllFinite(s_.rows[n], head_.head_dim);
    }
    if (finite) PackValues(keys);
    const KeyGroup* first = group->rank < begin ? group + 1 : group;
    for (int band = 0; band < rows_; band += band_rows_) {
      const int rows = std::min(band_rows_, rows_ - band);
      const int32_t seen = RowKeys(band + rows - 1) - begin;
      if (seen <= 0) continue;
      BandScores({band, rows}, first, begin, seen);
      const int band_keys = std::min(seen, kChunkKeys);
      for (int row = band; row < band + rows; ++row) BandWeights(band, row, begin, band_keys);
      if (finite) {
        Engine::AddValues({.weights = s_.weights,
                           .values = s_.values,
                           .sums = s_.sums + int64_t{band} * head_.head_dim,
                           .head_dim = head_.head_dim,
                           .keys = band_keys,
                           .rows = rows});
      } else {
        for (int row = band; row < band + rows; ++row) AddOwnValues(band, row, begin);
      }
    }
    return next;
  }

  // Fills rows[] with the chunk's values by rank; returns the group that the next rank is in.
  const KeyGroup* ListValues(int32_t begin, int keys, const KeyGroup* group) {
    const int64_t head_dim = head_.head_dim;
    for (;; ++group) {
      const Bfloat16* values = head_.Values(*group);
      int32_t rank = group->rank - begin;
      uint32_t visible = group->visible;
      for (; rank < 0; ++rank) visible &= visible - 1;
      for (; visible != 0; ++rank, visible &= visible - 1) {
        s_.rows[rank] = values + std::countr_zero(visible) * head_dim;
      }
      if (rank > keys) return group;
      if (rank == keys) return group + 1;
    }
  }

  // The first `keys` listed values into pairs of ranks, zeros up to the next multiple of 32.
  void PackValues(int keys) {
    const int padded = (keys + 31) / 32 * 32;
    for (int n = keys; n < padded; ++n) s_.rows[n] = s_.zeros;
    for (int n = 0; n < padded; n += 2) {
      PackPair(s_.rows[n], s_.rows[n + 1], head_.head_dim, s_.values + n / 2 * kPairDims);
    }
  }

  struct Rows {
    int begin;
    int count;
  };

  // Scores of a band's rows and ranks [begin, begin + seen), as far as they start in this chunk.
  void BandScores(Rows band, const KeyGroup* first, int32_t begin, int32_t seen) {
    const int32_t end = begin + std::min(seen, kChunkKeys);
    const KeyGroup* last = first;
    const KeyGroup* all = s_.groups.data() + s_.groups.size();
    while (last != all && last->rank < end) ++last;
    for (int row = 0; row < band.count && begin > 0; ++row) {
      _mm512_storeu_ps(s_.scores + row * kScoreStride,
                       _mm512_load_ps(s_.over + (band.begin + row) * kGroupKeys));
    }
    Engine::Scores({.head = &head_,
                    .query = s_.query + int64_t{band.begin} * kRowPairs,
                    .groups = first,
                    .group_count = static_cast<int>(last - first),
                    .rank_begin = begin,
                    .scores = s_.scores,
                    .rows = band.count});
    for (int row = 0; row < band.count && seen > kChunkKeys; ++row) {
      _mm512_store_ps(s_.over + (band.begin + row) * kGroupKeys,
                      _mm512_loadu_ps(s_.scores + row * kScoreStride + kChunkKeys));
    }
  }

  // Scores of one row become weights; what the row has summed is rescaled to the new maximum.
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
      float* own = s_.sums + int64_t{row} * head_.head_dim;
      for (int dim = 0; dim < head_.head_dim; dim += 16) {
        _mm512_storeu_ps(own + dim,
                         _mm512_maskz_scalef_ps(kAllLanes, _mm512_loadu_ps(own + dim), shift));
      }
    }
    _mm512_store_ps(lanes, Weights(scores, keys, _mm512_set1_ps(log2_scale_),
                                   _mm512_set1_ps(maximum), weights, sums));
  }

  // One row against its own values alone, for the sake of values that are not finite.
  void AddOwnValues(int band, int row, int32_t begin) {
    const int keys = std::clamp(RowKeys(row) - begin, 0, kChunkKeys);
    if (keys == 0) return;
    const Bfloat16* kept[32];  // What PackValues puts zeros over.
    std::copy_n(s_.rows + keys, 32, kept);
    PackValues(keys);
    std::copy_n(kept, 32, s_.rows + keys);
    float* own = s_.sums + int64_t{row} * head_.head_dim;
    std::memcpy(s_.single, own, sizeof(float) * head_.head_dim);
    Engine::AddValues({.weights = s_.weights + (row - band) * kRowPairs,
                       .values = s_.values,
                       .sums = s_.single,
                       .head_dim = head_.head_dim,
                       .keys = keys,
                       .rows = 1});
    std::memcpy(own, s_.single, sizeof(float) * head_.head_dim);
  }

  // A row that sees no key becomes zero. Adding zero makes -0, which padding could turn, one zero.
  void Store(int row) {
    const float* sums = s_.sums + int64_t{row} * head_.head_dim;
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
                            (__m256i)_mm512_cvtneps_pbh(result));
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
  int ratio_;  // Query heads of one KV head.
  float log2_scale_;
  int row_begin_ = 0;
  int rows_ = 0;
  int band_rows_ = 0;
};

template <class Engine>
void RunItem(const AttentionItem& item) {
  thread_local const auto scratch = hwy::MakeUniqueAligned<Scratch<Engine>>();
  CollectKeys(*item.params, *item.tile, &scratch->groups, &scratch->row_keys);
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
