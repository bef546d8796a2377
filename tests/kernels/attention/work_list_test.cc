// Expands work-lists back to single (query, key) pairs and compares every one with MaySee, for
// random rules, interleaved groups, every way of chunking, and incremental decoding.
#include "kernels/attention/work_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "tests/kernels/attention/random_structure.h"

namespace structattn {
namespace {

constexpr int kSeeds = 300;

using Pair = std::pair<int, int>;  // Query index, key index.

// The first pair of the tile's rows on which the listed intervals and MaySee differ, or (query,
// size) when only the number of keys differs.
std::optional<Pair> FirstDisagreement(const Structure& structure, const WorkList& work,
                                      const QueryTile& tile, int32_t window = kNoWindow) {
  for (int query = tile.query_begin; query < tile.query_begin + tile.query_count; ++query) {
    std::vector<bool> listed(structure.size(), false);
    for (int n = tile.interval_begin; n < tile.interval_end; ++n) {
      const int end = std::min(work.intervals[n].end, query + 1);
      for (int key = work.intervals[n].begin; key < end; ++key) listed[key] = true;
    }
    int seen = 0;
    for (int key = 0; key < structure.size(); ++key) {
      if (listed[key] != MaySee(structure, query, key, window)) return Pair(query, key);
      seen += listed[key];
    }
    if (tile.KeysOfRow(query - tile.query_begin) != seen) return Pair(query, structure.size());
  }
  return std::nullopt;
}

// Feeds a prompt chunk by chunk, as the engine does, and checks each chunk's tiles.
class ChunkedPrompt {
 public:
  ChunkedPrompt(const RuleTable& rule, std::vector<int> groups, int32_t window = kNoWindow)
      : groups_(std::move(groups)),
        structure_(rule, PositionPolicy::kSequential),
        window_(window) {}

  // Appends `appended` tokens to the structure and queries `queried` of those not yet queried.
  void Step(int appended, int queried, int tile_size) {
    for (int i = 0; i < appended; ++i) structure_.Append(groups_[structure_.size()]);
    visible_.Extend(structure_);
    WorkList work;
    work.intervals.push_back({-7, -3});  // Another sequence's, to be left alone.
    AppendTiles({.structure = &structure_,
                 .intervals = &visible_,
                 .sequence = 5,
                 .row_begin = 1000,
                 .query_begin = queried_,
                 .query_end = queried_ + queried,
                 .window = window_},
                tile_size, &work);
    CheckTiles(work, queried, tile_size);
    queried_ += queried;
  }

  int unappended() const { return static_cast<int>(groups_.size()) - structure_.size(); }
  int unqueried() const { return structure_.size() - queried_; }

 private:
  void CheckTiles(const WorkList& work, int queried, int tile_size) {
    int next = queried_;
    for (const QueryTile& tile : work.tiles) {
      ASSERT_EQ(tile.query_begin, next);
      ASSERT_EQ(tile.row_begin, 1000 + next - queried_);
      ASSERT_EQ(tile.sequence, 5);
      ASSERT_GE(tile.query_count, 1);
      ASSERT_LE(tile.query_count, tile_size);
      next += tile.query_count;
      CheckIntervals(work, tile, queried_ + queried);
      ASSERT_EQ(FirstDisagreement(structure_, work, tile, window_), std::nullopt);
    }
    ASSERT_EQ(next, queried_ + queried);
    if (window_ != kNoWindow) return;
    ASSERT_LE(work.intervals.size(), 1 + structure_.runs().size() * DistinctRows());
  }

  void CheckIntervals(const WorkList& work, const QueryTile& tile, int query_end) {
    for (int n = tile.interval_begin; n < tile.interval_end; ++n) {
      const KeyInterval& interval = work.intervals[n];
      ASSERT_GE(interval.begin, 0);
      ASSERT_LT(interval.begin, interval.end);
      ASSERT_LE(interval.end, query_end);
      ASSERT_TRUE(n == tile.interval_begin || interval.begin > work.intervals[n - 1].end);
    }
  }

  size_t DistinctRows() const {
    std::set<uint64_t> rows;
    for (const int group : groups_) rows.insert(structure_.rule().visible[group]);
    return rows.size();
  }

  std::vector<int> groups_;
  Structure structure_;
  int32_t window_;
  VisibleIntervals visible_;
  int queried_ = 0;
};

// A preset, a random table, or one in which some groups do not see themselves.
RuleTable AnyRule(Random& random) {
  RuleTable rule = RandomRule(random);
  if (Uniform(random, 0, 3) == 0) rule.visible[Uniform(random, 0, 3)] = random();
  return rule;
}

TEST(WorkListTest, WholePromptEqualsMaySee) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const int length = Uniform(random, 1, 130);
    ChunkedPrompt prompt(AnyRule(random), RandomGroups(random, length, Uniform(random, 1, 64)));
    prompt.Step(length, length, Uniform(random, 1, 20));
    if (HasFatalFailure()) return;
  }
}

TEST(WorkListTest, AnyChunkingEqualsMaySee) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const int length = Uniform(random, 1, 130);
    ChunkedPrompt prompt(AnyRule(random), RandomGroups(random, length, Uniform(random, 1, 9)));
    const int tile_size = Uniform(random, 1, 20);
    const int most = Uniform(random, 1, 40);
    while (prompt.unappended() + prompt.unqueried() > 0) {
      const int appended = Uniform(random, 0, std::min(most, prompt.unappended()));
      const int queried = Uniform(random, 0, std::min(most, prompt.unqueried() + appended));
      prompt.Step(appended, queried, tile_size);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(WorkListTest, TokenByTokenEqualsMaySee) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const int length = Uniform(random, 1, 60);
    ChunkedPrompt prompt(AnyRule(random), RandomGroups(random, length, Uniform(random, 1, 9)));
    for (int i = 0; i < length; ++i) {
      prompt.Step(1, 1, 16);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(WorkListTest, AnyWindowEqualsMaySee) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const int length = Uniform(random, 1, 130);
    const int window = Uniform(random, 1, Uniform(random, 1, 140));
    ChunkedPrompt prompt(AnyRule(random), RandomGroups(random, length, Uniform(random, 1, 20)),
                         window);
    const int tile_size = Uniform(random, 1, 20);
    while (prompt.unappended() + prompt.unqueried() > 0) {
      const int appended = Uniform(random, 0, prompt.unappended());
      prompt.Step(appended, Uniform(random, 0, prompt.unqueried() + appended), tile_size);
      if (HasFatalFailure()) return;
    }
  }
}

// Rows that lose no visible key to the window share a tile.
TEST(WorkListTest, TilesAreCutOnlyWhereTheWindowHidesAKey) {
  std::vector<int> groups(40, 1);
  groups.insert(groups.end(), 40, 2);
  const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kIsolated), groups);
  VisibleIntervals visible;
  visible.Extend(structure);
  WorkList work;
  AppendTiles({.structure = &structure,
               .intervals = &visible,
               .sequence = 0,
               .row_begin = 0,
               .query_begin = 0,
               .query_end = 80,
               .window = 36},
              16, &work);
  std::vector<int> rows;
  for (const QueryTile& tile : work.tiles) rows.push_back(tile.query_count);
  // Of each group 36 tokens see its first one, in tiles of 16; the last four see one key less each.
  EXPECT_EQ(rows, (std::vector<int>{16, 16, 4, 1, 1, 1, 1, 16, 16, 4, 1, 1, 1, 1}));
}

TEST(WorkListTest, SplitsOfAWindowStartAtItsFirstKey) {
  const Structure structure =
      MakeStructure(RuleTable::Preset(RulePreset::kCausal), std::vector<int>(1000, 0));
  VisibleIntervals visible;
  visible.Extend(structure);
  const SequenceQueries query = {.structure = &structure,
                                 .intervals = &visible,
                                 .sequence = 0,
                                 .row_begin = 0,
                                 .query_begin = 999,
                                 .query_end = 1000,
                                 .window = 300};
  WorkList work;
  AppendDecodeTiles({{&query, 1}, 0}, 16, &work);
  ASSERT_EQ(work.generated.size(), 1u);
  EXPECT_EQ(FirstDisagreement(structure, work, work.generated[0], 300), std::nullopt);
  EXPECT_EQ(work.generated[0].keys(), 300);
  EXPECT_EQ(work.splits.size(), 2u);
}

// The test of the check: one key more or less in one interval is found.
TEST(WorkListTest, OneWrongBoundIsFound) {
  const Structure structure =
      MakeStructure(RuleTable::Preset(RulePreset::kIsolated), {0, 0, 1, 1, 2, 2, 1, 1, 0});
  VisibleIntervals visible;
  visible.Extend(structure);
  WorkList work;
  AppendTiles({.structure = &structure,
               .intervals = &visible,
               .sequence = 0,
               .row_begin = 0,
               .query_begin = 0,
               .query_end = 9},
              16, &work);
  const auto disagreements = [&] {
    int count = 0;
    for (const QueryTile& tile : work.tiles) {
      count += FirstDisagreement(structure, work, tile).has_value();
    }
    return count;
  };
  ASSERT_EQ(disagreements(), 0);
  const std::vector<KeyInterval> right = work.intervals;
  for (size_t n = 0; n < right.size(); ++n) {
    for (const KeyInterval wrong : {KeyInterval{right[n].begin + 1, right[n].end},
                                    KeyInterval{right[n].begin - 1, right[n].end},
                                    KeyInterval{right[n].begin, right[n].end - 1}}) {
      if (wrong.begin < 0) continue;
      work.intervals[n] = wrong;
      EXPECT_GT(disagreements(), 0) << "interval " << n;
      work.intervals = right;
    }
  }
}

// Branches of one prompt: each key rank of each branch lies in exactly one split, splits within the
// shared keys hold several branches, and partial results do not overlap.
TEST(WorkListTest, GeneratedTokensAreSplitAtFixedRanks) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const int branches = Uniform(random, 1, 7);
    const int together = Uniform(random, 1, 4);
    const Structure trunk = MakeStructure(RuleTable::Preset(RulePreset::kShared),
                                          RandomGroups(random, Uniform(random, 1, 1500), 4));
    std::vector<Structure> structures(branches, trunk);
    std::vector<VisibleIntervals> visible(branches);
    std::vector<SequenceQueries> queries;
    for (int b = 0; b < branches; ++b) {
      structures[b].Append(0);
      visible[b].Extend(structures[b]);
      queries.push_back({.structure = &structures[b],
                         .intervals = &visible[b],
                         .sequence = b,
                         .row_begin = b,
                         .query_begin = trunk.size(),
                         .query_end = trunk.size() + 1});
    }
    WorkList work;
    work.partials = 3;  // Other sequences have these.
    AppendDecodeTiles({queries, Uniform(random, 0, trunk.size())}, together, &work);
    ASSERT_EQ(work.generated.size(), static_cast<size_t>(branches));
    EXPECT_TRUE(work.tiles.empty());
    std::set<int> partials;
    for (const KeySplit& split : work.splits) {
      EXPECT_EQ(split.rank_begin % kSplitKeys, 0);
      EXPECT_LE(split.tile_count, together);
      for (int b = split.tile_begin; b < split.tile_begin + split.tile_count; ++b) {
        EXPECT_LT(split.rank_begin, work.generated.at(b).keys());
        EXPECT_TRUE(partials.insert(work.generated[b].partial_begin + split.rank_begin / kSplitKeys)
                        .second);
      }
    }
    int expected = 0;
    for (int b = 0; b < branches; ++b) {
      EXPECT_EQ(FirstDisagreement(structures[b], work, work.generated[b]), std::nullopt);
      expected += (work.generated[b].keys() + kSplitKeys - 1) / kSplitKeys;
    }
    EXPECT_EQ(work.partials, 3 + expected);
    ASSERT_EQ(static_cast<int>(partials.size()), expected);
    EXPECT_EQ(*partials.begin(), 3);
    EXPECT_EQ(*partials.rbegin(), work.partials - 1);
  }
}

TEST(WorkListTest, SharedKeysAreReadOnceInWholeSplits) {
  constexpr int kTrunk = 3 * kSplitKeys + 50;
  const Structure trunk =
      MakeStructure(RuleTable::Preset(RulePreset::kCausal), std::vector<int>(kTrunk, 0));
  std::vector<Structure> structures(4, trunk);
  std::vector<VisibleIntervals> visible(4);
  std::vector<SequenceQueries> queries;
  for (int b = 0; b < 4; ++b) {
    structures[b].Append(0);
    visible[b].Extend(structures[b]);
    queries.push_back({&structures[b], &visible[b], b, b, kTrunk, kTrunk + 1});
  }
  WorkList work;
  AppendDecodeTiles({queries, kTrunk}, 16, &work);
  EXPECT_EQ(work.splits.size(), 3u + 4u);  // Three are shared, then each has one.
  WorkList alone;
  AppendDecodeTiles({queries, 0}, 16, &alone);
  EXPECT_EQ(alone.splits.size(), 16u);
}

TEST(WorkListTest, GroupsWithEqualRowsShareTilesAndIntervals) {
  Random random(3);
  const auto groups = RandomGroups(random, 160, 20);
  const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kCausal), groups);
  VisibleIntervals visible;
  visible.Extend(structure);
  WorkList work;
  AppendTiles({.structure = &structure,
               .intervals = &visible,
               .sequence = 0,
               .row_begin = 0,
               .query_begin = 0,
               .query_end = 160},
              16, &work);
  EXPECT_EQ(work.tiles.size(), 10u);
  ASSERT_EQ(work.intervals.size(), 1u);
  EXPECT_EQ(work.intervals[0].begin, 0);
  EXPECT_EQ(work.intervals[0].end, 160);
}

// 63 groups that alternate token by token: the intervals stay O(tokens), not O(tokens^2).
TEST(WorkListTest, InterleavedGroupsStayLinear) {
  constexpr int kLength = 6300;
  std::vector<int> groups;
  for (int i = 0; i < kLength; ++i) groups.push_back(1 + i % 63);
  const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kIsolated), groups);
  VisibleIntervals visible;
  visible.Extend(structure);
  WorkList work;
  AppendTiles({.structure = &structure,
               .intervals = &visible,
               .sequence = 0,
               .row_begin = 0,
               .query_begin = 0,
               .query_end = kLength},
              16, &work);
  EXPECT_EQ(work.tiles.size(), static_cast<size_t>(kLength));
  EXPECT_EQ(work.intervals.size(), static_cast<size_t>(kLength));
}

TEST(WorkListTest, CopiedIntervalsGrowOnTheirOwn) {
  // Branches copy a sequence's structure and lists, and then grow independently.
  Structure trunk = MakeStructure(RuleTable::Preset(RulePreset::kShared), {0, 0, 1, 1});
  VisibleIntervals trunk_visible;
  trunk_visible.Extend(trunk);
  Structure branch = trunk;
  VisibleIntervals branch_visible = trunk_visible;
  branch.Append(2);
  branch_visible.Extend(branch);
  trunk.Append(1);
  trunk_visible.Extend(trunk);
  ASSERT_EQ(branch_visible.ForGroup(2).size(), 2u);
  EXPECT_EQ(branch_visible.ForGroup(2)[1].begin, 4);
  ASSERT_EQ(trunk_visible.ForGroup(1).size(), 1u);
  EXPECT_EQ(trunk_visible.ForGroup(1)[0].end, 5);
}

}  // namespace
}  // namespace structattn
