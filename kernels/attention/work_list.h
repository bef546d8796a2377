// What an attention launch has to do: query tiles that point at intervals of visible keys.
// Built by server/engine/batch_builder from the sequences of a step; consumed by the CPU and the
// CUDA kernel alike. Memory is O(runs of equal group); nothing of size S x S exists.
#ifndef STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_
#define STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/attention/structure.h"

namespace structattn {

// Key token indices [begin, end) of one sequence.
struct KeyInterval {
  int32_t begin;
  int32_t end;
};

// Consecutive query tokens of one sequence and one group. Row r of the tile is the token with index
// query_begin + r; it sees the keys of its intervals with index <= its own (the causal bound; keys
// of later tiles may already be listed and are cut by it).
struct QueryTile {
  int32_t sequence;        // Index into the batch's sequences (block tables).
  int32_t row_begin;       // First row in the batch's [tokens, ...] tensors.
  int32_t query_begin;     // First token index in its sequence.
  int32_t query_count;     // 1..tile size.
  int32_t interval_begin;  // Range in WorkList::intervals: sorted, disjoint, not touching.
  int32_t interval_end;
};

struct WorkList {
  std::vector<QueryTile> tiles;
  std::vector<KeyInterval> intervals;

  void Clear() {
    tiles.clear();
    intervals.clear();
  }
};

// The key intervals of each used group of one growing sequence, kept up to date as the structure
// grows. One per sequence, beside its Structure. O(runs) memory per group that queries.
class VisibleIntervals {
 public:
  // Takes in tokens of `structure` appended since the last call. O(new runs x groups seen).
  void Extend(const Structure& structure);

  // Intervals of all keys so far that `group` sees; sorted, disjoint, merged when they touch.
  std::span<const KeyInterval> ForGroup(int group) const { return intervals_[group]; }

 private:
  std::array<std::vector<KeyInterval>, kMaxGroups> intervals_;
  int32_t extended_ = 0;  // Tokens taken in.
};

// Appends to `work` the tiles for query tokens [query_begin, query_end) of one sequence, cut at
// group borders and at `tile_size` rows counted from the start of each run's part in the range.
// Intervals are copied once per group used in the range, cut at query_end.
struct SequenceQueries {
  const Structure* structure;
  const VisibleIntervals* intervals;
  int32_t sequence;
  int32_t row_begin;
  int32_t query_begin;
  int32_t query_end;
};
void AppendTiles(const SequenceQueries& queries, int tile_size, WorkList* work);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_
