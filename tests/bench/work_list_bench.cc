// Times what a step pays for structure and work-list: a six-question prompt of 400 tokens, and
// 32k tokens with 63 groups, in runs and interleaved token by token. Checks the pair count of the
// tiles first. Run by hand; prints microseconds.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "kernels/attention/structure.h"
#include "kernels/attention/work_list.h"
#include "kernels/check.h"

namespace structattn {
namespace {

struct Case {
  const char* name;
  RulePreset preset;
  std::vector<int> groups;
};

// A context of group 0, `questions` runs of `question_tokens`, an answer cue of group 0.
std::vector<int> Prompt(int context, int questions, int question_tokens) {
  std::vector<int> groups(context, 0);
  for (int q = 1; q <= questions; ++q) groups.insert(groups.end(), question_tokens, q);
  groups.insert(groups.end(), 4, 0);
  return groups;
}

std::vector<int> Interleaved(int tokens) {
  std::vector<int> groups;
  for (int i = 0; i < tokens; ++i) groups.push_back(1 + i % 63);
  return groups;
}

int64_t TilePairs(const WorkList& work) {
  int64_t pairs = 0;
  for (const QueryTile& tile : work.tiles) {
    for (int query = tile.query_begin; query < tile.query_begin + tile.query_count; ++query) {
      for (int n = tile.interval_begin; n < tile.interval_end; ++n) {
        const KeyInterval& interval = work.intervals[n];
        if (interval.begin > query) break;
        pairs += std::min(interval.end, query + 1) - interval.begin;
      }
    }
  }
  return pairs;
}

void Measure(const Case& test) {
  using Clock = std::chrono::steady_clock;
  const int tokens = static_cast<int>(test.groups.size());
  const auto microseconds = [](Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::micro>(to - from).count();
  };
  double best_structure = 1e30, best_lists = 1e30;
  size_t tiles = 0, intervals = 0;
  WorkList work;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto start = Clock::now();
    Structure structure(RuleTable::Preset(test.preset), PositionPolicy::kAligned);
    for (const int group : test.groups) structure.Append(group);
    const auto middle = Clock::now();
    VisibleIntervals visible;
    visible.Extend(structure);
    work.Clear();
    AppendTiles({.structure = &structure,
                 .intervals = &visible,
                 .sequence = 0,
                 .row_begin = 0,
                 .query_begin = 0,
                 .query_end = tokens},
                16, &work);
    const auto end = Clock::now();
    if (repeat == 0) STRUCTATTN_CHECK(TilePairs(work) == CountVisiblePairs(structure));
    best_structure = std::min(best_structure, microseconds(start, middle));
    best_lists = std::min(best_lists, microseconds(middle, end));
    tiles = work.tiles.size();
    intervals = work.intervals.size();
  }
  std::printf("%-40s %6d tokens %6zu tiles %6zu intervals: structure %8.2f us, lists %8.2f us\n",
              test.name, tokens, tiles, intervals, best_structure, best_lists);
}

}  // namespace
}  // namespace structattn

int main() {
  using namespace structattn;
  for (const Case& test :
       {Case{"six questions, anchored", RulePreset::kAnchored, Prompt(324, 6, 12)},
        Case{"six questions, shared", RulePreset::kShared, Prompt(324, 6, 12)},
        Case{"63 runs, isolated", RulePreset::kIsolated, Prompt(512, 63, 512)},
        Case{"63 runs, anchored", RulePreset::kAnchored, Prompt(512, 63, 512)},
        Case{"63 groups token by token, isolated", RulePreset::kIsolated, Interleaved(32768)},
        Case{"63 groups token by token, anchored", RulePreset::kAnchored, Interleaved(32768)}}) {
    Measure(test);
  }
  return 0;
}
