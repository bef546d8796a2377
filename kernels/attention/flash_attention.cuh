// Structured attention on tensor cores for 16-bit storage (after FlashAttention-2, Dao 2023). A
// thread block holds up to 64 query rows (tokens x query heads of one KV head) and walks the keys
// that they see in key tiles of 64 key ranks. The slots of the next key tiles are looked up through
// intervals and block table while the current one is multiplied, so scattered keys cost what dense
// ones do, and no other key is ever read. A launch runs over the query tiles of prompts, or
// (kSplit) over the splits of decode tiles, whose partial results merge_splits.cuh puts together.
//
// A row sees a prefix of its query tile's key ranks, so its bits depend on its own visible keys
// alone: key tiles beyond it add zeros to sums and leave its largest score as it is.
#ifndef STRUCTATTN_KERNELS_ATTENTION_FLASH_ATTENTION_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_FLASH_ATTENTION_CUH_

#include "kernels/attention/attention.h"
#include "kernels/attention/flash_softmax.cuh"
#include "kernels/attention/flash_tile.cuh"
#include "kernels/attention/key_cursor.cuh"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// Where a partial result of a query head lies. It has the largest score, the sum, and the output
// [head_dim].
__device__ inline int64_t PartialOffset(const AttentionParams& p, int partial, int head) {
  return (int64_t{partial} * p.heads + head) * (p.kv.head_dim + 2);
}

template <typename T, int kDims, bool kSplit>
struct FlashAttentionKernel {
  using Params = AttentionParams;
  using Layout = TileLayout<kDims>;
  static constexpr const char* kName = kSplit ? "attention (split)" : "attention (tile)";
  // A warp has bands of 16 rows. Two bands halve what is read from shared memory for a row, which
  // is what binds on Hopper, but registers allow them at 64 dims only. Decode tiles seldom fill
  // one.
  static constexpr int kBands = kDims <= 64 && !kSplit ? 2 : 1;
  static constexpr int kRows = 2 * kBands;  // A lane holds so many rows.
  static constexpr int kWarps = kCudaTileRows / (16 * kBands);
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kMinBlocks = kDims <= 64 ? 3 : 2;

  // Copies that a thread starts for a key tile.
  static constexpr int kCopies = Layout::kKeys * Layout::kChunks / kThreads;
  static_assert(kCopies * kThreads == Layout::kKeys * Layout::kChunks);

  // Shared memory holds two key tiles of keys, two of values, and for two key tiles the cache rows
  // of their keys, where -1 stands for no key.
  static constexpr int kKeyOffset = 0;
  static constexpr int kValueOffset = 2 * Layout::kBytes;
  static constexpr int kRowOffset = 4 * Layout::kBytes;
  static constexpr int kMaxSharedBytes = kRowOffset + 2 * Layout::kKeys * int{sizeof(int)};
  static_assert(kMaxSharedBytes <= 99 * 1024, "sm_86, sm_89 and sm_120 allow no more");

  static LaunchShape Shape(const Params& p) {
    const int64_t items = kSplit ? p.split_count : p.tile_count;
    return {.grid_x = static_cast<unsigned>(items * p.kv.kv_heads),
            .shared_bytes = kMaxSharedBytes};
  }

  // What a thread block works on.
  struct Work {
    QueryTile tile;  // kSplit: the split's first decode tile.
    int item;        // The index of the query tile or split.
    int kv_head;
    int ratio;       // The number of query heads of a KV head.
    int rows;        // The number of query rows, at most kCudaTileRows.
    int rank_begin;  // Its key ranks are [rank_begin, rank_end).
    int rank_end;
    int full_tiles;  // All rows see so many leading key tiles whole.
    int key_tiles;
  };

  // One of the thread block's query rows.
  struct Row {
    int64_t query;  // Where it begins in query and output, in elements.
    int head;
    int seen;     // Key ranks before this are visible.
    int partial;  // kSplit: where the result goes. It is -1 for a row that does not exist.

    __device__ bool exists() const { return partial >= 0; }
  };

  static __device__ Work FindWork(const Params& p) {
    Work work;
    work.item = BlockX() / p.kv.kv_heads;
    work.kv_head = BlockX() % p.kv.kv_heads;
    work.ratio = p.heads / p.kv.kv_heads;
    int common;  // All rows see the key ranks before this.
    if constexpr (kSplit) {
      const KeySplit* split = p.splits + work.item;
      work.tile = LoadTile(p.generated + LoadGlobal(&split->tile_begin));
      work.rows = LoadGlobal(&split->tile_count) * work.ratio;
      // fault: stale_split
      work.rank_begin = LoadGlobal(&split->rank_begin);
      work.rank_end = min(work.tile.keys(), work.rank_begin + kSplitKeys);
      common = work.rank_end;
    } else {
      work.tile = LoadTile(p.tiles + work.item);
      work.rows = work.tile.query_count * work.ratio;
      work.rank_begin = 0;
      work.rank_end = work.tile.keys();
      common = work.tile.KeysOfRow(0);
    }
    // fault: edge_tile_unmasked, one_tile_too_many
    work.full_tiles = (common - work.rank_begin) / Layout::kKeys;
    work.key_tiles = (work.rank_end - work.rank_begin + Layout::kKeys - 1) / Layout::kKeys;
    return work;
  }

  static __device__ Row FindRow(const Params& p, const Work& work, int r) {
    if (r >= work.rows) return {.query = 0, .head = 0, .seen = 0, .partial = -1};
    const int token = r / work.ratio;
    const int head = work.kv_head * work.ratio + r - token * work.ratio;
    int64_t batch_row = work.tile.row_begin + token;
    // fault: causal_bound_off_by_one
    int seen = work.tile.KeysOfRow(token);
    int partial = 0;
    if constexpr (kSplit) {
      const QueryTile* tile = p.generated + LoadGlobal(&p.splits[work.item].tile_begin) + token;
      batch_row = LoadGlobal(&tile->row_begin);
      seen = work.rank_end;
      // fault: splits_in_one_place
      partial = LoadGlobal(&tile->partial_begin) + work.rank_begin / kSplitKeys;
    }
    return {.query = (batch_row * p.heads + head) * kDims,
            .head = head,
            .seen = seen,
            .partial = partial};
  }

  // The thread block's row that is this lane's row i.
  static __device__ Row LaneRow(const Params& p, const Work& work, int i) {
    return FindRow(p, work, WarpIndex() * 16 * kBands + 8 * i + LaneIndex() / 4);
  }

  static __device__ void LoadQuery(const Params& p, const Work& work,
                                   QueryFragments<kDims, kBands>& query) {
    const int column = 2 * (LaneIndex() % 4);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Row row = LaneRow(p, work, i);
      const float* from = p.query + row.query + column;
#pragma unroll
      for (int n = 0; n < kDims / 8; ++n) {
        FloatPair pair = {0.0f, 0.0f};
        if (row.exists()) pair = LoadGlobal(reinterpret_cast<const FloatPair*>(from + n * 8));
        query.a[i / 2][n / 2][n % 2 * 2 + i % 2] = NarrowPair<T>(pair.x, pair.y);
      }
    }
  }

  // Writes the cache rows of key tile t into the table of its stage. The first 64 threads do it.
  static __device__ void FindCacheRows(const Params& p, const Work& work, int t,
                                       KeyCursor& cursor) {
    if (ThreadIndex() >= Layout::kKeys) return;
    const int rank = work.rank_begin + t * Layout::kKeys + ThreadIndex();
    // fault: rank_past_the_end, wrong_head
    const int row = rank < work.rank_end ? cursor.RowOf(p.kv, work.kv_head, rank) : -1;
    StoreShared<int>(RowTable(t) + ThreadIndex() * int{sizeof(int)}, row);
  }

  static __device__ int RowTable(int t) {
    // fault: stale_rows
    return kRowOffset + t % 2 * Layout::kKeys * int{sizeof(int)};
  }
  // fault: one_stage_of_keys, one_stage_of_values
  static __device__ int KeyTile(int t) { return kKeyOffset + t % 2 * Layout::kBytes; }
  static __device__ int ValueTile(int t) { return kValueOffset + t % 2 * Layout::kBytes; }

  // Starts to copy key tile t of `cache` (the layer's keys or values) to shared offset `to`, and
  // commits the copies. A thread copies sixteen bytes a turn, and threads next to each other copy
  // chunks of one key.
  static __device__ void CopyTile(const void* cache, const Work& work, int t, int to) {
    // fault: copies_past_the_last_tile
    if (t < work.key_tiles) {
      const int table = RowTable(t);
#pragma unroll
      for (int n = 0; n < kCopies; ++n) {
        const Chunk chunk = FindChunk(n);
        const int row = LoadShared<int>(table + chunk.key * int{sizeof(int)});
        const char* from = static_cast<const char*>(cache) + chunk.index * 16;
        // fault: rest_not_filled, no_zero_fill
        CopyAsync16(to + Layout::Offset(chunk.key, chunk.index),
                    from + int64_t{row} * (kDims * int{sizeof(T)}), row >= 0);
      }
    }
    CommitCopies();
  }

  struct Chunk {
    int key;
    int index;  // Its place in the key's row.
  };

  // What this thread copies in turn n.
  static __device__ Chunk FindChunk(int n) {
    if constexpr (kThreads % Layout::kChunks == 0) {  // The same chunk in every turn.
      return {.key = ThreadIndex() / Layout::kChunks + n * (kThreads / Layout::kChunks),
              .index = ThreadIndex() % Layout::kChunks};
    } else {
      const int i = ThreadIndex() + n * kThreads;
      return {.key = i / Layout::kChunks, .index = i % Layout::kChunks};
    }
  }

  // What a warp holds and has computed so far.
  struct State {
    QueryFragments<kDims, kBands> query;
    OutputFragments<kDims, kBands> output = {};
    SoftmaxState<kBands> softmax;
    int seen[kRows];  // Row::seen of the lane's rows.
  };

  // Meets key tile t. The copies of its keys and of its values are under way on entry, those of key
  // tile t + 1 on exit. With kMasked, some row may not see all of the key tile.
  template <bool kMasked>
  static __device__ void MeetTile(const Params& p, const Work& work, int t, KeyCursor& cursor,
                                  State& state) {
    const bool has_rows = WarpIndex() * 16 * kBands < work.rows;
    ScoreFragments<kBands> scores;
    // fault: keys_not_waited_for, no_barrier_for_keys
    WaitCopies<1>();
    BlockBarrier();  // All threads see the keys of t; none reads those of t - 1 any more.
    CopyTile(p.kv.key, work, t + 1, KeyTile(t + 1));
    if (has_rows) {
      Scores<T>(state.query, KeyTile(t), scores);
      if constexpr (kMasked) {
        MaskScores(state.seen, work.rank_begin + t * Layout::kKeys, scores);
      }
      UpdateSoftmax<kMasked>(p.scale * kLog2E, scores, state.softmax, state.output);
    }
    // fault: values_not_waited_for, no_barrier_for_values
    WaitCopies<1>();
    BlockBarrier();  // All threads see the values of t; none reads those of t - 1 any more.
    CopyTile(p.kv.value, work, t + 1, ValueTile(t + 1));
    // fault: rows_not_looked_up
    if (t + 2 < work.key_tiles) FindCacheRows(p, work, t + 2, cursor);
    if (has_rows) AddValues<T>(scores, ValueTile(t), state.output);
  }

  // Divides and stores the output. A sum of 0 means that the row saw no key, and makes it zero.
  static __device__ void StoreOutput(const Params& p, const Work& work, const State& state) {
    const int column = 2 * (LaneIndex() % 4);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      // fault: no_guard_for_rows_that_see_nothing, sum_after_a_branch
      const float sum = QuadSum(state.softmax.sum[i]);
      const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
      const Row row = LaneRow(p, work, i);
      // fault: rows_that_are_none_stored
      if (!row.exists()) continue;
      T* to = static_cast<T*>(p.output) + row.query + column;
#pragma unroll
      for (int n = 0; n < kDims / 8; ++n) {
        const float(&c)[4] = state.output.c[i / 2][n];
        // fault: store_past_the_end
        StoreGlobal(reinterpret_cast<uint32_t*>(to + n * 8),
                    NarrowPair<T>(c[i % 2 * 2] * inverse, c[i % 2 * 2 + 1] * inverse));
      }
    }
  }

  static __device__ void StorePartial(const Params& p, const Work& work, const State& state) {
    const int column = 2 * (LaneIndex() % 4);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float sum = QuadSum(state.softmax.sum[i]);
      const Row row = LaneRow(p, work, i);
      if (!row.exists()) continue;
      float* to = p.partials + PartialOffset(p, row.partial, row.head);
      if (column == 0) {
        StoreGlobal(reinterpret_cast<FloatPair*>(to), {state.softmax.largest[i], sum});
      }
#pragma unroll
      for (int n = 0; n < kDims / 8; ++n) {
        const float(&c)[4] = state.output.c[i / 2][n];
        StoreGlobal(reinterpret_cast<FloatPair*>(to + 2 + n * 8 + column),
                    {c[i % 2 * 2], c[i % 2 * 2 + 1]});
      }
    }
  }

  static __device__ void Run(const Params& p) {
    const Work work = FindWork(p);
    KeyCursor cursor(p, work.tile);
    FindCacheRows(p, work, 0, cursor);
    FindCacheRows(p, work, 1, cursor);
    // fault: no_barrier_for_rows
    BlockBarrier();
    CopyTile(p.kv.key, work, 0, KeyTile(0));
    CopyTile(p.kv.value, work, 0, ValueTile(0));
    State state;
#pragma unroll
    for (int i = 0; i < kRows; ++i) state.seen[i] = LaneRow(p, work, i).seen;
    LoadQuery(p, work, state.query);
    int t = 0;
    for (; t < work.full_tiles; ++t) MeetTile<false>(p, work, t, cursor, state);
    for (; t < work.key_tiles; ++t) MeetTile<true>(p, work, t, cursor, state);
    if constexpr (kSplit) {
      StorePartial(p, work, state);
    } else {
      StoreOutput(p, work, state);
    }
  }
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_FLASH_ATTENTION_CUH_
