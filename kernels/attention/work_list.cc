// Visible key intervals and query tiles, in O(new runs + tiles). Nothing here looks at a single
// key.
#include "kernels/attention/work_list.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/check.h"

namespace structattn {
namespace {

// A range in WorkList::intervals.
struct IntervalRange {
  int32_t begin;
  int32_t end;
};

// Appends keys [begin, end), or adds them to the last interval when they touch it.
void AppendKeys(int32_t begin, int32_t end, std::vector<KeyInterval>* intervals) {
  if (!intervals->empty() && intervals->back().end == begin) {
    intervals->back().end = end;
  } else {
    intervals->push_back({.begin = begin, .end = end});
  }
}

// Counts the keys of intervals in slots below a bound that never decreases, in amortised O(1).
class KeyCounter {
 public:
  KeyCounter() = default;
  explicit KeyCounter(const IntervalRange& range) : range_(range), next_(range.begin) {}

  int32_t CountBelow(int32_t bound, std::span<const KeyInterval> intervals) {
    for (; next_ < range_.end && intervals[next_].end <= bound; ++next_) {
      passed_ += intervals[next_].end - intervals[next_].begin;
    }
    if (next_ == range_.end) return passed_;
    return passed_ + std::max(bound - intervals[next_].begin, 0);
  }

  const IntervalRange& range() const { return range_; }

 private:
  IntervalRange range_ = {};
  int32_t next_ = 0;    // The first interval that does not lie below the last bound.
  int32_t passed_ = 0;  // Keys of the intervals before it.
};

// Appends what `source` has in `slots` to `target`, and returns where it lies there.
IntervalRange CopyIntervals(std::span<const KeyInterval> source, const KeyInterval& slots,
                            std::vector<KeyInterval>* target) {
  const int32_t first = static_cast<int32_t>(target->size());
  const auto begin =
      std::partition_point(source.begin(), source.end(),
                           [&slots](KeyInterval interval) { return interval.end <= slots.begin; });
  const auto end = std::partition_point(
      begin, source.end(), [&slots](KeyInterval interval) { return interval.begin < slots.end; });
  if (begin != end) {
    target->insert(target->end(), begin, end);
    (*target)[first].begin = std::max((*target)[first].begin, slots.begin);
    target->back().end = std::min(target->back().end, slots.end);
  }
  return {.begin = first, .end = static_cast<int32_t>(target->size())};
}

// Queries [begin, end) whose groups share a rule row, that of `owner`.
struct RowQueries {
  int32_t begin;
  int32_t end;
  int owner;
  bool sees_itself;
};

// Cuts the queries of one AppendTiles call into tiles.
class TileCutter {
 public:
  TileCutter(const SequenceQueries& queries, WorkList* work)
      : queries_(queries), visible_(*queries.intervals), work_(*work) {}

  void Append(RowQueries rows, int tile_size) {
    const std::span<const KeyInterval> keys = visible_.ForGroup(rows.owner);
    const int32_t very_first = keys.empty() ? kNoKey : keys.front().begin;
    while (rows.begin < rows.end) {
      const int32_t first_key = FirstKey(keys, rows.begin);
      const int32_t end = TileEnd(keys, first_key, rows, tile_size);
      if (first_key == very_first) {
        AppendTile(rows, end, SharedList(rows.owner));
      } else {
        const int32_t bound = visible_.placement().SlotsOf(end);
        KeyCounter cut(CopyIntervals(keys, {first_key, bound}, &work_.intervals));
        AppendTile(rows, end, cut);
      }
      rows.begin = end;
    }
  }

 private:
  static constexpr int32_t kNoKey = std::numeric_limits<int32_t>::max();

  // The slot of the first of the keys that the token at `index` may see through the window.
  int32_t FirstKey(std::span<const KeyInterval> keys, int32_t index) const {
    const int32_t oldest = index - queries_.window + 1;
    const int32_t bound = oldest <= 0 ? 0 : visible_.placement().SlotOf(oldest);
    const auto found = std::partition_point(
        keys.begin(), keys.end(), [bound](KeyInterval interval) { return interval.end <= bound; });
    return found == keys.end() ? kNoKey : std::max(found->begin, bound);
  }

  // Where the tile of rows.begin, which sees first_key, ends: all of its rows do.
  int32_t TileEnd(std::span<const KeyInterval> keys, int32_t first_key, const RowQueries& rows,
                  int tile_size) const {
    const int32_t most = std::min(rows.end, rows.begin + tile_size);
    if (most <= queries_.window) return most;  // The window cuts none of them.
    int32_t end = rows.begin + 1;
    while (end < most && FirstKey(keys, end) == first_key) ++end;
    return end;
  }

  // The list of one owner, as far as the queries see it, copied once.
  KeyCounter& SharedList(int owner) {
    if ((copied_ >> owner & 1) == 0) {
      copied_ |= uint64_t{1} << owner;
      const int32_t bound = visible_.placement().SlotsOf(queries_.query_end);
      lists_[owner] =
          KeyCounter(CopyIntervals(visible_.ForGroup(owner), {0, bound}, &work_.intervals));
    }
    return lists_[owner];
  }

  void AppendTile(const RowQueries& rows, int32_t end, KeyCounter& list) {
    work_.tiles.push_back(
        {.sequence = queries_.sequence,
         .row_begin = queries_.row_begin + (rows.begin - queries_.query_begin),
         .query_begin = rows.begin,
         .query_count = end - rows.begin,
         .interval_begin = list.range().begin,
         .interval_end = list.range().end,
         .keys_before = list.CountBelow(visible_.placement().SlotOf(rows.begin), work_.intervals),
         .sees_itself = rows.sees_itself});
  }

  const SequenceQueries& queries_;
  const VisibleIntervals& visible_;
  WorkList& work_;
  std::array<KeyCounter, kMaxGroups> lists_;  // Indexed by owner; valid once its list is copied.
  uint64_t copied_ = 0;                       // Bit g: the list of owner g is copied.
};

}  // namespace

void VisibleIntervals::Activate(const Structure& structure, int group) {
  const RuleTable& rule = structure.rule();
  active_ |= uint64_t{1} << group;
  for (uint64_t others = active_; others != 0; others &= others - 1) {
    const int other = std::countr_zero(others);
    if (other != group && rule.visible[other] == rule.visible[group]) {
      owner_[group] = owner_[other];
      return;
    }
  }
  owner_[group] = static_cast<uint8_t>(group);
  for (int key_group = 0; key_group < kMaxGroups; ++key_group) {
    if (rule.Sees(group, key_group)) seen_by_[key_group] |= uint64_t{1} << group;
  }
  const std::span<const Run> runs = structure.runs();
  for (size_t r = 0; r < runs.size() && runs[r].begin < extended_; ++r) {
    if (!rule.Sees(group, runs[r].group)) continue;
    const int32_t slot = placement_.RunSlot(r);
    const int32_t tokens = std::min(runs[r].end, extended_) - runs[r].begin;
    AppendKeys(slot, slot + tokens, &intervals_[group]);
  }
}

void VisibleIntervals::Extend(const Structure& structure) {
  const std::span<const Run> runs = structure.runs();
  placement_.Extend(structure);
  for (uint64_t added = structure.used_groups() & ~active_; added != 0; added &= added - 1) {
    Activate(structure, std::countr_zero(added));
  }
  for (; next_run_ < static_cast<int32_t>(runs.size()); ++next_run_) {
    const Run& run = runs[next_run_];
    if (run.end == extended_) continue;
    const int32_t slot = placement_.RunSlot(next_run_);
    const int32_t begin = slot + (std::max(run.begin, extended_) - run.begin);
    for (uint64_t owners = seen_by_[run.group]; owners != 0; owners &= owners - 1) {
      AppendKeys(begin, slot + (run.end - run.begin), &intervals_[std::countr_zero(owners)]);
    }
    extended_ = run.end;
  }
  if (next_run_ > 0) --next_run_;  // The last run may still grow.
}

void AppendTiles(const SequenceQueries& queries, int tile_size, WorkList* work) {
  const Structure& structure = *queries.structure;
  const VisibleIntervals& visible = *queries.intervals;
  STRUCTATTN_CHECK(tile_size > 0 && queries.query_begin >= 0 && queries.window > 0);
  STRUCTATTN_CHECK(queries.query_end <= visible.size());
  TileCutter cutter(queries, work);
  const std::span<const Run> runs = structure.runs();
  auto run = std::partition_point(runs.begin(), runs.end(), [&queries](const Run& candidate) {
    return candidate.end <= queries.query_begin;
  });
  int32_t begin = queries.query_begin;
  while (begin < queries.query_end) {
    const int owner = visible.Owner(run->group);
    const bool sees_itself = structure.rule().Sees(owner, run->group);
    int32_t end = begin;  // Where the queries with one rule row end; they may span several runs.
    for (; run != runs.end() && end < queries.query_end && visible.Owner(run->group) == owner &&
           structure.rule().Sees(owner, run->group) == sees_itself;
         ++run) {
      end = std::min(run->end, queries.query_end);
    }
    cutter.Append({.begin = begin, .end = end, .owner = owner, .sees_itself = sees_itself},
                  tile_size);
    begin = end;
  }
}

void AppendDecodeTiles(const BranchFamily& family, int split_kv_branches, WorkList* work) {
  STRUCTATTN_CHECK(split_kv_branches > 0);
  const int32_t first = static_cast<int32_t>(work->generated.size());
  const int32_t count = static_cast<int32_t>(family.branches.size());
  for (const SequenceQueries& branch : family.branches) {
    STRUCTATTN_CHECK(branch.query_end - branch.query_begin == 1);
    AppendTiles(branch, 1, work);
    QueryTile tile = work->tiles.back();
    work->tiles.pop_back();
    STRUCTATTN_CHECK(family.shared_keys <= tile.keys());
    tile.partial_begin = work->partials;
    work->partials += (tile.keys() + kSplitKeys - 1) / kSplitKeys;
    work->generated.push_back(tile);
  }
  const int32_t shared = count > 1 ? family.shared_keys / kSplitKeys * kSplitKeys : 0;
  for (int32_t begin = 0; begin < count; begin += split_kv_branches) {
    const int32_t together = std::min(split_kv_branches, count - begin);
    for (int32_t rank = 0; rank < shared; rank += kSplitKeys) {
      work->splits.push_back(
          {.tile_begin = first + begin, .tile_count = together, .rank_begin = rank});
    }
  }
  for (int32_t tile = first; tile < first + count; ++tile) {
    for (int32_t rank = shared; rank < work->generated[tile].keys(); rank += kSplitKeys) {
      work->splits.push_back({.tile_begin = tile, .tile_count = 1, .rank_begin = rank});
    }
  }
}

}  // namespace structattn
