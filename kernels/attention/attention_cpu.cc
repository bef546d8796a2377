// Attention on the CPU: the cut into items of parallel work, the choice of a kernel, and the kernel
// in float for all storage types and instruction sets, an exact two-pass softmax over the visible
// keys of each query tile. No item depends on the number of threads in a single bit.
#include "kernels/attention/attention_cpu.h"

// AVX3, AVX2 and the portable fallback are enough on x86; the inner loops keep arrays of vectors,
// which scalable vectors forbid.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"
#include "kernels/attention/attention_cpu-inl.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/check.h"
#include "kernels/convert-inl.h"

#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_ONCE_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_ONCE_
namespace structattn {

// Uninitialised floats, which grow and are kept for the next item.
class FloatBuffer {
 public:
  float* Get(int64_t count) {
    if (count > size_) {
      data_ = hwy::AllocateAligned<float>(static_cast<size_t>(count));
      STRUCTATTN_CHECK(data_ != nullptr);
      size_ = count;
    }
    return data_.get();
  }

 private:
  hwy::AlignedFreeUniquePtr<float[]> data_;
  int64_t size_ = 0;
};

// The memory that one thread keeps between items.
struct AttentionScratch {
  std::vector<KeyTile> key_tiles;
  std::vector<int32_t> row_keys;
  FloatBuffer scores;
  FloatBuffer queries;
  FloatBuffer sums;
};

}  // namespace structattn
#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_ONCE_

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {

// A panel is the rows that share a pass over the keys. It has at most kPanelRows rows, and fewer
// when their scores would leave the cache.
constexpr int kPanelRows = 8 * kMaxRows;
constexpr int64_t kPanelScores = 64 * 1024;
constexpr int64_t kLeastPanelRows = 2;
// The keys (or values) of so many key tiles stay in the cache while all rows of a panel meet them.
constexpr int kChunkTiles = 16;

template <typename T>
using ScoreFunction = void (*)(ScoreArgs<T>, int);
template <typename T>
using ValueFunction = void (*)(const ValueArgs<T>&);

// The instantiation for `rows` rows, 1..kMaxRows.
template <typename T, int... kRows>
ScoreFunction<T> ScoreFunctionFor(int rows, std::integer_sequence<int, kRows...>) {
  static constexpr ScoreFunction<T> kTable[] = {&ScoreTiles<kRows + 1, T>...};
  return kTable[rows - 1];
}

template <typename T, int kVecs, int... kRows>
ValueFunction<T> ValueFunctionFor(int rows, std::integer_sequence<int, kRows...>) {
  static constexpr ValueFunction<T> kTable[] = {&AddValues<kRows + 1, kVecs, T>...};
  return kTable[rows - 1];
}

constexpr auto kAllRows = std::make_integer_sequence<int, kMaxRows>();

template <typename T>
ValueFunction<T> ValueFunctionFor(int rows, int vecs) {
  if (vecs == 1) return ValueFunctionFor<T, 1>(rows, kAllRows);
  if (vecs == 2) return ValueFunctionFor<T, 2>(rows, kAllRows);
  if (vecs == 3) return ValueFunctionFor<T, std::min(3, kMaxValueVecs)>(rows, kAllRows);
  return ValueFunctionFor<T, kMaxValueVecs>(rows, kAllRows);
}

// Rows of one query tile and KV head, where row = token x query heads + head.
template <typename T>
class Panel {
 public:
  Panel(const AttentionParams& params, const QueryTile& tile, int kv_head,
        AttentionScratch& scratch)
      : params_(params), tile_(tile), kv_head_(kv_head), scratch_(scratch) {
    const KvLayerView& kv = params.kv;
    const int64_t head_stride = int64_t{kv.head_dim} * kv.block_size;
    head_ = {.key = static_cast<const T*>(kv.key) + kv_head * head_stride,
             .value = static_cast<const T*>(kv.value) + kv_head * head_stride,
             .block_stride = kv.kv_heads * head_stride,
             .block_size = kv.block_size,
             .head_dim = kv.head_dim};
    ratio_ = params.heads / kv.kv_heads;
  }

  // Computes and stores rows [row_begin, row_begin + rows).
  void Run(int row_begin, int rows) {
    row_begin_ = row_begin;
    rows_ = rows;
    bands_ = (rows + kMaxRows - 1) / kMaxRows;
    const int32_t keys = RowKeys(rows - 1);
    key_tile_count_ = TilesBefore(keys);
    stride_ = (keys + 3 * kTileKeys - 1) / kTileKeys * kTileKeys;
    scores_ = scratch_.scores.Get(rows * stride_);
    queries_ = scratch_.queries.Get(int64_t{rows} * kQueryStride);
    sums_ = scratch_.sums.Get(int64_t{rows} * head_.head_dim);
    ScaleQueries();
    Scores();
    for (int row = 0; row < rows_; ++row) {
      if (RowKeys(row) > 0) {
        denominators_[row] = SoftmaxNumerators(scores_ + row * stride_, RowKeys(row));
      }
    }
    Values();
    Store();
  }

 private:
  // The rows are cut evenly into bands of at most kMaxRows.
  int BandBegin(int band) const { return rows_ * band / bands_; }
  int BandRows(int band) const { return BandBegin(band + 1) - BandBegin(band); }

  int32_t RowKeys(int row) const { return scratch_.row_keys[(row_begin_ + row) / ratio_]; }

  // Where a row begins in the query and output tensors, in elements.
  int64_t RowOffset(int row) const {
    const int64_t token = tile_.row_begin + (row_begin_ + row) / ratio_;
    const int head = kv_head_ * ratio_ + (row_begin_ + row) % ratio_;
    return (token * params_.heads + head) * head_.head_dim;
  }

  // The number of key tiles that hold ranks below `keys`.
  int TilesBefore(int32_t keys) const {
    const auto begin = scratch_.key_tiles.begin();
    const auto end =
        std::partition_point(begin, scratch_.key_tiles.end(),
                             [keys](const KeyTile& key_tile) { return key_tile.rank < keys; });
    return static_cast<int>(end - begin);
  }

  HWY_INLINE static FloatVec LoadQuery(const float* from) {
    const FloatTag d;
    const FloatVec query = hn::LoadU(d, from);
    if constexpr (!std::is_same_v<T, Bfloat16>) return query;
    HWY_ALIGN Bfloat16 rounded[kLanes];
    StoreAs(query, d, rounded);
    return LoadFloat(d, rounded);
  }

  void ScaleQueries() {
    const FloatTag d;
    const FloatVec scale = hn::Set(d, params_.scale);
    for (int row = 0; row < rows_; ++row) {
      const float* query = params_.query + RowOffset(row);
      float* scaled = queries_ + row * kQueryStride;
      for (int dim = 0; dim < head_.head_dim; dim += kLanes) {
        hn::StoreU(hn::Mul(LoadQuery(query + dim), scale), d, scaled + dim);
      }
    }
  }

  // Multiplies each band by the key tiles that its last row sees.
  void Scores() {
    for (int chunk = 0; chunk < key_tile_count_; chunk += kChunkTiles) {
      for (int band = 0; band < bands_; ++band) {
        const int begin = BandBegin(band);
        const int seen = TilesBefore(RowKeys(BandBegin(band + 1) - 1)) - chunk;
        if (seen <= 0) continue;
        const auto score = ScoreFunctionFor<T>(BandRows(band), kAllRows);
        score({.head = head_,
               .query = queries_ + begin * kQueryStride,
               .key_tiles = scratch_.key_tiles.data() + chunk,
               .scores = scores_ + begin * stride_,
               .stride = stride_},
              std::min(kChunkTiles, seen));
      }
    }
  }

  // Adds the values that all rows of a band see, chunk by chunk, and then what is left of each row.
  void Values() {
    std::fill_n(sums_, int64_t{rows_} * head_.head_dim, 0.0f);
    if (key_tile_count_ == 0) return;
    const KeyTile* key_tiles = scratch_.key_tiles.data();
    for (int chunk = 0; chunk < key_tile_count_; chunk += kChunkTiles) {
      const int next = chunk + kChunkTiles;
      for (int band = 0; band < bands_; ++band) {
        const int begin = BandBegin(band);
        const int32_t common = RowKeys(begin);
        const int32_t end =
            next < key_tile_count_ ? std::min(key_tiles[next].rank, common) : common;
        AddRange({begin, BandRows(band)}, key_tiles + chunk, {key_tiles[chunk].rank, end});
      }
    }
    for (int band = 0; band < bands_; ++band) {
      const int32_t common = RowKeys(BandBegin(band));
      const KeyTile* key_tile =
          std::partition_point(key_tiles, key_tiles + key_tile_count_,
                               [common](const KeyTile& g) { return g.rank <= common; }) -
          1;
      for (int row = BandBegin(band); row < BandBegin(band + 1); ++row) {
        AddRange({row, 1}, key_tile, {common, RowKeys(row)});
      }
    }
  }

  struct Rows {
    int begin;
    int count;
  };

  // Adds the values of key ranks [ranks.begin, ranks.end), which start in `key_tile`, to some rows'
  // sums.
  void AddRange(Rows rows, const KeyTile* key_tile, KeyInterval ranks) {
    if (ranks.begin >= ranks.end) return;
    const int vecs = head_.head_dim / kLanes;
    const int passes = (vecs + kMaxValueVecs - 1) / kMaxValueVecs;
    for (int pass = 0; pass < passes; ++pass) {
      const int first = vecs * pass / passes;
      const int count = vecs * (pass + 1) / passes - first;
      ValueFunctionFor<T>(rows.count,
                          count)({.head = head_,
                                  .key_tile = key_tile,
                                  .begin = ranks.begin,
                                  .end = ranks.end,
                                  .dim_begin = first * kLanes,
                                  .weights = scores_ + rows.begin * stride_,
                                  .stride = stride_,
                                  .sums = sums_ + int64_t{rows.begin} * head_.head_dim});
    }
  }

  // Divides and stores the sums. A row that sees no key becomes zero.
  void Store() {
    for (int row = 0; row < rows_; ++row) {
      const float denominator = RowKeys(row) > 0 ? denominators_[row] : 1.0f;
      const float* sums = sums_ + int64_t{row} * head_.head_dim;
      switch (params_.output_dtype) {
        case DType::kFloat32:
          StoreRow(sums, denominator, static_cast<float*>(params_.output) + RowOffset(row));
          break;
        case DType::kBfloat16:
          StoreRow(sums, denominator, static_cast<Bfloat16*>(params_.output) + RowOffset(row));
          break;
        case DType::kFloat16:
          StoreRow(sums, denominator, static_cast<Float16*>(params_.output) + RowOffset(row));
          break;
      }
    }
  }

  template <typename Out>
  void StoreRow(const float* sums, float denominator, Out* output) {
    const FloatTag d;
    const FloatVec divisor = hn::Set(d, denominator);
    for (int dim = 0; dim < head_.head_dim; dim += kLanes) {
      StoreAs(hn::Div(hn::LoadU(d, sums + dim), divisor), d, output + dim);
    }
  }

  const AttentionParams& params_;
  const QueryTile& tile_;
  const int kv_head_;
  AttentionScratch& scratch_;
  HeadView<T> head_;
  int ratio_;  // The number of query heads of one KV head.
  int row_begin_ = 0;
  int rows_ = 0;
  int bands_ = 0;
  int key_tile_count_ = 0;    // The key tiles that the panel's last row sees.
  int64_t stride_ = 0;        // The floats from one row of scores to the next.
  float* scores_ = nullptr;   // [rows][stride], indexed by key rank; numerators after the softmax.
  float* queries_ = nullptr;  // [rows][kQueryStride], scaled.
  float* sums_ = nullptr;     // [rows][head_dim]
  float denominators_[kPanelRows];
};

template <typename T>
void RunItem(const AttentionItem& item, AttentionScratch& scratch) {
  CollectKeys(*item.params, *item.tile, &scratch.key_tiles, &scratch.row_keys);
  const int rows = item.row_end - item.row_begin;
  const int64_t keys = std::max(scratch.row_keys.back(), 1);
  const int most =
      static_cast<int>(std::clamp<int64_t>(kPanelScores / keys, kLeastPanelRows, kPanelRows));
  const int panels = (rows + most - 1) / most;
  Panel<T> panel(*item.params, *item.tile, item.kv_head, scratch);
  for (int p = 0; p < panels; ++p) {
    const int begin = rows * p / panels;
    panel.Run(item.row_begin + begin, rows * (p + 1) / panels - begin);
  }
}

void RunFloatItem(const AttentionItem& item) {
  thread_local AttentionScratch scratch;
  switch (item.params->kv.dtype) {
    case DType::kFloat32:
      return RunItem<float>(item, scratch);
    case DType::kBfloat16:
      return RunItem<Bfloat16>(item, scratch);
    case DType::kFloat16:
      return RunItem<Float16>(item, scratch);
  }
}

std::string_view TargetName() { return hwy::TargetName(HWY_TARGET); }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(RunFloatItem);
HWY_EXPORT(TargetName);

namespace {

// A slice of a query tile has no fewer rows than this, because each slice reads all its keys.
constexpr int64_t kLeastSliceRows = 24;

// The number of slices that a query tile with enough rows is cut into, so that all threads end
// together where there are few tiles. No bit depends on it.
int64_t MostSlices(const ThreadPool& pool, const AttentionParams& params) {
  constexpr int64_t kItemsPerThread = 6;
  const int64_t most = int64_t{kCpuTileRows} * params.heads / params.kv.kv_heads / kLeastSliceRows;
  const int64_t items = int64_t{params.tile_count} * params.kv.kv_heads;
  const int64_t wanted = pool.threads() == 1 ? 1 : pool.threads() * kItemsPerThread;
  return std::clamp<int64_t>((wanted + items - 1) / items, 1, most);
}

}  // namespace

const AttentionKernel* BestBf16AttentionKernel(int head_dim) {
  for (const AttentionKernel* kernel : {AmxAttentionKernel(), Avx512Bf16AttentionKernel()}) {
    if (kernel != nullptr && kernel->supports(head_dim)) return kernel;
  }
  return nullptr;
}

void AttentionCpuWith(const AttentionKernel* bf16_kernel, ThreadPool& pool,
                      const AttentionParams& params) {
  STRUCTATTN_CHECK(params.kv.head_dim <= 256 && params.scale > 0.0f);
  if (params.tile_count == 0) return;
  const bool pairs = params.kv.dtype == DType::kBfloat16 && bf16_kernel != nullptr;
  const auto run = pairs ? bf16_kernel->run : HWY_DYNAMIC_DISPATCH(RunFloatItem);
  // Late tiles of a long prompt cost most, so they go first, and no thread ends alone with one. The
  // heads of a tile follow each other, because their queries and outputs lie side by side.
  const int64_t kv_heads = params.kv.kv_heads;
  const int64_t most_slices = MostSlices(pool, params);
  pool.ParallelFor(params.tile_count * kv_heads * most_slices, [&](int64_t index) {
    const int64_t slice = index % most_slices;
    const int64_t i = index / most_slices;
    const QueryTile& tile = params.tiles[params.tile_count - 1 - i / kv_heads];
    const int64_t rows = int64_t{tile.query_count} * params.heads / kv_heads;
    const int64_t slices = std::clamp<int64_t>(rows / kLeastSliceRows, 1, most_slices);
    if (slice >= slices) return;
    run({.params = &params,
         .tile = &tile,
         .kv_head = static_cast<int>(i % kv_heads),
         .row_begin = static_cast<int>(rows * slice / slices),
         .row_end = static_cast<int>(rows * (slice + 1) / slices)});
  });
}

void AttentionCpu(ThreadPool& pool, const AttentionParams& params) {
  AttentionCpuWith(BestBf16AttentionKernel(params.kv.head_dim), pool, params);
}

RowBand AttentionCpuBand(DType dtype, int head_dim) {
  const AttentionKernel* kernel = BestBf16AttentionKernel(head_dim);
  if (dtype == DType::kBfloat16 && kernel != nullptr) return kernel->band;
  return {.rows = HWY_STATIC_DISPATCH(kMaxRows), .row_multiple = 1};
}

std::string_view AttentionCpuName() {
  static const std::string* const name = [] {
    const AttentionKernel* kernel = BestBf16AttentionKernel(64);
    const std::string target(HWY_DYNAMIC_DISPATCH(TargetName)());
    return new std::string("cpu/" + target +
                           (kernel == nullptr ? "" : "+" + std::string(kernel->name)));
  }();
  return *name;
}

}  // namespace structattn
#endif  // HWY_ONCE
