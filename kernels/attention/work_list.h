// What an attention launch has to do: query tiles that point at intervals of visible keys. The CPU
// and the CUDA kernels take the same list. Its memory is O(runs of equal group), and of layers with
// a sliding window O(runs within the window) for each row that the window cuts; nothing of size S x
// S ever exists.
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
// which all see each other or (under rules that are refused) all do not; with a sliding window they
// also see the same first key. Row r of the tile is the
// token with index query_begin + r. It sees the first KeysOfRow(r) keys of its intervals, which are
// those of tokens up to itself (the causal bound); keys of later tiles may stand behind them.
//
// The key rank of a key is its place among the keys of the intervals, so a row sees a prefix of the
// tile's key ranks.
struct QueryTile {
  int32_t sequence;        // Index into the batch's sequences (block tables).
  int32_t row_begin;       // First row in the batch's [tokens, ...] tensors.
  int32_t query_begin;     // First token index in its sequence.
  int32_t query_count;     // 1..tile size.
  int32_t interval_begin;  // A range in WorkList::intervals: sorted, disjoint, not touching.
  int32_t interval_end;
  int32_t keys_before = 0;    // Keys in its intervals that belong to tokens before query_begin.
  int32_t sees_itself = 0;    // 1 iff its tokens see each other; 0 only for refused rules.
  int32_t partial_begin = 0;  // A decode tile's first partial result; it has one a split.

  // Row r sees the key ranks below this.
  constexpr int32_t KeysOfRow(int32_t row) const { return keys_before + sees_itself * (row + 1); }
  constexpr int32_t keys() const { return KeysOfRow(query_count - 1); }
};

// Keys of one split when few queries meet many keys (split-KV, "flash decoding"). The number is
// fixed, and splits are counted from the start of the row's own visible keys, so that no bit
// depends on anything else.
inline constexpr int32_t kSplitKeys = 256;

// Key ranks [rank_begin, rank_begin + kSplitKeys) of `tile_count` decode tiles, which all see the
// same keys there, in the same cache slots, so that branches read once what they share.
struct KeySplit {
  int32_t tile_begin;  // A range in WorkList::generated.
  int32_t tile_count;
  int32_t rank_begin;  // A multiple of kSplitKeys.
};

struct WorkList {
  std::vector<QueryTile> tiles;
  std::vector<KeyInterval> intervals;
  // The decode tiles, of one token each, and the splits of their keys. Both stay empty on a device
  // that does not split keys (Tiling).
  std::vector<QueryTile> generated;
  std::vector<KeySplit> splits;
  int32_t partials = 0;  // Partial results of all decode tiles.

  void Clear() {
    tiles.clear();
    intervals.clear();
    generated.clear();
    splits.clear();
    partials = 0;
  }
};

// The visible key intervals of each used group of one growing sequence. Groups with equal rows in
// the rule table share one list, so memory is O(runs) per distinct row in use; under the presets it
// is O(runs) in all for isolated groups.
class VisibleIntervals {
 public:
  explicit VisibleIntervals(const Placement& placement = Placement()) : placement_(placement) {}

  // Takes in the tokens that were appended since the last call. `structure` is always the same one.
  // The cost is O(new runs x distinct rows that see them), and O(runs) once for a group that is
  // new.
  void Extend(const Structure& structure);

  // The slots of all keys so far that `group` sees: sorted, disjoint, merged when they touch.
  // `group` has a token in the structure.
  std::span<const KeyInterval> ForGroup(int group) const { return intervals_[owner_[group]]; }

  // The group whose list `group` shares; it is the same for groups with equal rows.
  int Owner(int group) const { return owner_[group]; }

  // The number of tokens taken in.
  int32_t size() const { return extended_; }

  // Where these tokens lie.
  const Placement& placement() const { return placement_; }

 private:
  void Activate(const Structure& structure, int group);

  Placement placement_;
  std::array<std::vector<KeyInterval>, kMaxGroups> intervals_;  // Only owners have any.
  std::array<uint64_t, kMaxGroups> seen_by_ = {};  // [h]: bit g set iff g is an owner that sees h.
  std::array<uint8_t, kMaxGroups> owner_ = {};     // Valid for active groups.
  uint64_t active_ = 0;                            // Bit g: group g has a token taken in.
  int32_t extended_ = 0;
  int32_t next_run_ = 0;  // The last run seen, which may have grown since.
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
  int32_t window = kNoWindow;  // Of the layers that the list is for.
};

// Appends the query tiles of `queries` to `work`. They are cut where the rule's row changes, every
// `tile_size` rows from there, and where the window hides one more visible key. Each list of
// intervals is copied once per call, up to query_end, and once more for each tile that the window
// cuts.
void AppendTiles(const SequenceQueries& queries, int tile_size, WorkList* work);

// Branches whose block tables begin with the same blocks, and how many of their first visible keys
// are the same tokens in the same slots. A sequence without branches is a family of one.
struct BranchFamily {
  std::span<const SequenceQueries> branches;  // Each has one token.
  int32_t shared_keys = 0;
};

// Appends one decode tile per branch and the splits of their keys to `work`. A split that lies
// within the shared keys is there once for up to `split_kv_branches` branches, any other once for
// each branch.
void AppendDecodeTiles(const BranchFamily& family, int split_kv_branches, WorkList* work);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_WORK_LIST_H_
