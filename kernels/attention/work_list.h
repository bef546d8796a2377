// What an attention launch has to do: query tiles that point at intervals of visible keys.
// Built by server/engine/batch_builder from the sequences of a step; consumed by the CPU and the
// CUDA kernel alike. Memory is O(runs of equal group); nothing of size S x S exists.
#ifndef STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_
#define STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/placement.h"
#include "kernels/attention/structure.h"

namespace structattn {

// Slots [begin, end) of keys in the KV memory of one sequence (placement.h).
struct KeyInterval {
  int32_t begin;
  int32_t end;
};

// Consecutive query tokens of one sequence whose groups have the same row in the rule table, and
// which all see each other or (under rules that are refused) all do not. Row r of the tile is the
// token with index query_begin + r; it sees the first KeysOfRow(r) keys of its intervals, which are
// those of tokens up to itself (the causal bound; keys of later tiles may be listed behind them).
struct QueryTile {
  int32_t sequence;        // Index into the batch's sequences (block tables).
  int32_t row_begin;       // First row in the batch's [tokens, ...] tensors.
  int32_t query_begin;     // First token index in its sequence.
  int32_t query_count;     // 1..tile size.
  int32_t interval_begin;  // Range in WorkList::intervals: sorted, disjoint, not touching.
  int32_t interval_end;
  int32_t keys_before = 0;    // Keys of its intervals of tokens before query_begin.
  int32_t sees_itself = 0;    // 1 iff its tokens see each other; 0 only for refused rules.
  int32_t partial_begin = 0;  // Of a generated tile: its first partial result, one a split.

  // The rank of a key is its place among the keys of the intervals. Row r sees the ranks below
  // this.
  constexpr int32_t KeysOfRow(int32_t row) const { return keys_before + sees_itself * (row + 1); }
  constexpr int32_t keys() const { return KeysOfRow(query_count - 1); }
};

// Keys of one split when few queries meet many keys (split-K, "flash decoding"): fixed, and counted
// from the start of the row's own visible keys, so that no bit depends on anything else.
inline constexpr int32_t kSplitKeys = 256;

// Ranks [rank_begin, rank_begin + kSplitKeys) of `tile_count` generated tiles, which all see the
// same keys there, in the same cache slots: branches read what they share once.
struct KeySplit {
  int32_t tile_begin;  // Range in WorkList::generated.
  int32_t tile_count;
  int32_t rank_begin;  // A multiple of kSplitKeys.
};

struct WorkList {
  std::vector<QueryTile> tiles;
  std::vector<KeyInterval> intervals;
  // Where the device splits keys (Tiling): one-token tiles, and the splits of their keys.
  std::vector<QueryTile> generated;
  std::vector<KeySplit> splits;
  int32_t partials = 0;  // Partial results of all generated tiles.

  void Clear() {
    tiles.clear();
    intervals.clear();
    generated.clear();
    splits.clear();
    partials = 0;
  }
};

// The visible key intervals of each used group of one growing sequence, kept up to date as the
// structure grows. One per sequence, beside its Structure. Groups with equal rows in the rule table
// share one list, so memory is O(runs) per distinct row in use; under the presets O(runs) in all
// for isolated groups.
class VisibleIntervals {
 public:
  explicit VisibleIntervals(const Placement& placement = Placement()) : placement_(placement) {}

  // Takes in tokens of `structure` appended since the last call: always the same growing structure.
  // O(new runs x distinct rows that see them), and O(runs) once for a group that is new.
  void Extend(const Structure& structure);

  // Slots of all keys so far that `group` sees; sorted, disjoint, merged when they touch.
  // `group` has a token in the structure.
  std::span<const KeyInterval> ForGroup(int group) const { return intervals_[owner_[group]]; }

  // The group whose list `group` shares: equal for groups with equal rows.
  int Owner(int group) const { return owner_[group]; }

  // Tokens taken in.
  int32_t size() const { return extended_; }

  // Where they lie.
  const Placement& placement() const { return placement_; }

 private:
  void Activate(const Structure& structure, int group);

  Placement placement_;
  std::array<std::vector<KeyInterval>, kMaxGroups> intervals_;  // Of owners; others stay empty.
  std::array<uint64_t, kMaxGroups> seen_by_ = {};  // [h]: bit g set iff g is an owner that sees h.
  std::array<uint8_t, kMaxGroups> owner_ = {};     // Valid for active groups.
  uint64_t active_ = 0;                            // Groups that have a token among those taken in.
  int32_t extended_ = 0;
  int32_t next_run_ = 0;  // The last run seen: it may have grown since.
};

// Query tokens [query_begin, query_end) of one sequence; `intervals` has taken in at least
// query_end tokens.
struct SequenceQueries {
  const Structure* structure;
  const VisibleIntervals* intervals;
  int32_t sequence;
  int32_t row_begin;
  int32_t query_begin;
  int32_t query_end;
};

// Appends to `work` the tiles of `queries`, cut where the rule's row changes and at `tile_size`
// rows counted from there. Each list of intervals is copied once per call, cut at query_end.
void AppendTiles(const SequenceQueries& queries, int tile_size, WorkList* work);

// Branches whose block tables begin with the same blocks, and how many of their first visible keys
// (ranks) are the same tokens in the same slots. A sequence of its own is a family of one.
struct BranchFamily {
  std::span<const SequenceQueries> branches;  // One token each.
  int32_t shared_keys = 0;
};

// Appends to `work` one generated tile per branch and the splits of their keys: splits that lie
// within the shared keys once for up to `split_kv_branches` branches, the others per branch.
void AppendGenerated(const BranchFamily& family, int split_kv_branches, WorkList* work);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_
