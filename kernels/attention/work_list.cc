// Visible key intervals and query tiles. Called by server/engine/batch_builder for every step;
// costs O(new runs + tiles), never looks at a single key.
#include "kernels/attention/work_list.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace structattn {
namespace {

// Adds keys [begin, end) behind the last interval, or to it when they touch.
void AppendKeys(int32_t begin, int32_t end, std::vector<KeyInterval>* intervals) {
  if (!intervals->empty() && intervals->back().end == begin) {
    intervals->back().end = end;
  } else {
    intervals->push_back({.begin = begin, .end = end});
  }
}

// Copies the part of `source` before `bound` behind the work-list's intervals.
void CopyIntervals(std::span<const KeyInterval> source, int32_t bound,
                   std::vector<KeyInterval>* target) {
  const auto end =
      std::partition_point(source.begin(), source.end(),
                           [bound](KeyInterval interval) { return interval.begin < bound; });
  if (end == source.begin()) return;
  target->insert(target->end(), source.begin(), end);
  target->back().end = std::min(target->back().end, bound);
}

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
  for (const Run& run : structure.runs()) {  // Catch up with what was taken in before.
    if (run.begin >= extended_) break;
    if (!rule.Sees(group, run.group)) continue;
    AppendKeys(run.begin, std::min(run.end, extended_), &intervals_[group]);
  }
}

void VisibleIntervals::Extend(const Structure& structure) {
  const std::span<const Run> runs = structure.runs();
  for (uint64_t added = structure.used_groups() & ~active_; added != 0; added &= added - 1) {
    Activate(structure, std::countr_zero(added));
  }
  for (; next_run_ < static_cast<int32_t>(runs.size()); ++next_run_) {
    const Run& run = runs[next_run_];
    if (run.end == extended_) continue;
    const int32_t begin = std::max(run.begin, extended_);
    for (uint64_t owners = seen_by_[run.group]; owners != 0; owners &= owners - 1) {
      AppendKeys(begin, run.end, &intervals_[std::countr_zero(owners)]);
    }
    extended_ = run.end;
  }
  if (next_run_ > 0) --next_run_;  // The last run may still grow.
}

void AppendTiles(const SequenceQueries& queries, int tile_size, WorkList* work) {
  const Structure& structure = *queries.structure;
  const VisibleIntervals& visible = *queries.intervals;
  STRUCTATTN_CHECK(tile_size > 0 && queries.query_begin >= 0);
  STRUCTATTN_CHECK(queries.query_end <= visible.size());
  std::array<KeyInterval, kMaxGroups> copied;  // By owner: range in work->intervals.
  uint64_t owners = 0;                         // Whose list is copied.

  const std::span<const Run> runs = structure.runs();
  auto run = std::partition_point(runs.begin(), runs.end(), [&queries](const Run& candidate) {
    return candidate.end <= queries.query_begin;
  });
  int32_t begin = queries.query_begin;
  while (begin < queries.query_end) {
    const int owner = visible.Owner(run->group);
    int32_t end = begin;  // Of the part with one rule row, which may span several runs.
    for (; run != runs.end() && end < queries.query_end && visible.Owner(run->group) == owner;
         ++run) {
      end = std::min(run->end, queries.query_end);
    }
    if ((owners >> owner & 1) == 0) {
      owners |= uint64_t{1} << owner;
      copied[owner].begin = static_cast<int32_t>(work->intervals.size());
      CopyIntervals(visible.ForGroup(owner), queries.query_end, &work->intervals);
      copied[owner].end = static_cast<int32_t>(work->intervals.size());
    }
    for (; begin < end; begin += tile_size) {
      work->tiles.push_back({.sequence = queries.sequence,
                             .row_begin = queries.row_begin + (begin - queries.query_begin),
                             .query_begin = begin,
                             .query_count = std::min(tile_size, end - begin),
                             .interval_begin = copied[owner].begin,
                             .interval_end = copied[owner].end});
    }
    begin = end;
  }
}

}  // namespace structattn
