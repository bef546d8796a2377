// Holds structure.h against definitions written independently of it: the preset table and the
// position rules as the specification states them, the seed's mask, brute-force pair counts.
#include "kernels/attention/structure.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/attention/random_structure.h"

namespace structattn {
namespace {

constexpr int kSeeds = 200;

// The presets as a table of words, which say the groups that group `g` sees.
bool PresetSees(RulePreset preset, int g, int h) {
  if (g == 0 || preset == RulePreset::kCausal) return true;
  const bool own = g == h;
  switch (preset) {
    case RulePreset::kAnchored:
      return g == 1 ? h == 1 : (h == 1 || own);
    case RulePreset::kShared:
      return h == 0 || own;
    default:
      return own;
  }
}

// The mask of the specification, for groups 0..6.
bool SeedAllows(int query_group, int key_group) {
  if (query_group == 1) return key_group == 1;
  if (query_group >= 2 && query_group <= 6) return key_group == query_group || key_group == 1;
  return true;
}

// Positions by their definition, recomputed from all earlier tokens for every token.
std::vector<int> AlignedPositions(const std::vector<int>& groups) {
  std::vector<int> positions;
  const auto largest_before = [&positions](size_t count) {
    int largest = -1;
    for (size_t j = 0; j < count; ++j) largest = std::max(largest, positions[j]);
    return largest;
  };
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i] == 0) {
      positions.push_back(1 + largest_before(i));
      continue;
    }
    size_t first = 0;
    while (groups[first] == 0) ++first;
    int rank = 0;
    for (size_t j = 0; j < i; ++j) rank += groups[j] == groups[i];
    positions.push_back(1 + largest_before(first) + rank);
  }
  return positions;
}

TEST(RuleTableTest, PresetsAreTheSpecifiedTable) {
  for (const RulePreset preset : kPresets) {
    const RuleTable table = RuleTable::Preset(preset);
    EXPECT_EQ(table.rows, kMaxGroups);
    for (int g = 0; g < kMaxGroups; ++g) {
      for (int h = 0; h < kMaxGroups; ++h) {
        EXPECT_EQ(table.Sees(g, h), PresetSees(preset, g, h)) << "groups " << g << " and " << h;
      }
    }
  }
}

TEST(StructureTest, AnchoredIsTheSeedsMaskForUpToSixQuestions) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const auto groups = RandomGroups(random, Uniform(random, 1, 90), Uniform(random, 1, 7));
    const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kAnchored), groups);
    for (int i = 0; i < structure.size(); ++i) {
      for (int j = 0; j < structure.size(); ++j) {
        ASSERT_EQ(MaySee(structure, i, j), j <= i && SeedAllows(groups[i], groups[j]))
            << "query " << i << ", key " << j;
      }
    }
  }
}

TEST(StructureTest, SequentialPositionsCountTokens) {
  Random random(1);
  const Structure structure = MakeStructure(RandomRule(random), RandomGroups(random, 100, 5));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(structure.positions()[i], i);
}

TEST(StructureTest, AlignedPositionsOfOnePrompt) {
  // Instruction, two questions around a separator, a cue: 0 0 1 1 1 0 2 2 0.
  const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kAnchored),
                                            {0, 0, 1, 1, 1, 0, 2, 2, 0}, PositionPolicy::kAligned);
  EXPECT_EQ(std::vector<int>(structure.positions().begin(), structure.positions().end()),
            (std::vector<int>{0, 1, 2, 3, 4, 5, 2, 3, 6}));
}

TEST(StructureTest, AlignedPositionsFollowTheDefinition) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const auto groups = RandomGroups(random, Uniform(random, 1, 120), Uniform(random, 1, 9));
    const Structure structure = MakeStructure(RandomRule(random), groups, PositionPolicy::kAligned);
    const auto positions = structure.positions();
    EXPECT_EQ(std::vector<int>(positions.begin(), positions.end()), AlignedPositions(groups));
  }
}

TEST(StructureTest, RunsAreMaximalAndCoverAllTokens) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const auto groups = RandomGroups(random, Uniform(random, 0, 200), Uniform(random, 1, 64));
    const Structure structure = MakeStructure(RandomRule(random), groups);
    int next = 0;
    uint64_t used = 0;
    for (size_t r = 0; r < structure.runs().size(); ++r) {
      const auto& run = structure.runs()[r];
      ASSERT_EQ(run.begin, next);
      ASSERT_LT(run.begin, run.end);
      ASSERT_TRUE(r == 0 || run.group != structure.runs()[r - 1].group);
      for (int i = run.begin; i < run.end; ++i) {
        ASSERT_EQ(run.group, groups[i]);
        ASSERT_EQ(structure.groups()[i], groups[i]);
      }
      next = run.end;
      used |= uint64_t{1} << run.group;
    }
    EXPECT_EQ(next, structure.size());
    EXPECT_EQ(used, structure.used_groups());
  }
}

TEST(StructureTest, PairCountEqualsCounting) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    RuleTable rule = RandomRule(random);
    if (seed % 4 == 0) rule.visible[1] &= ~uint64_t{2};  // A group that does not see itself.
    const auto groups = RandomGroups(random, Uniform(random, 0, 150), Uniform(random, 1, 64));
    const Structure structure = MakeStructure(rule, groups);
    int64_t pairs = 0;
    for (int i = 0; i < structure.size(); ++i) {
      for (int j = 0; j < structure.size(); ++j) pairs += MaySee(structure, i, j);
    }
    EXPECT_EQ(CountVisiblePairs(structure), pairs);
  }
}

TEST(StructureTest, CausalPairsAreTheTriangle) {
  Random random(7);
  const auto groups = RandomGroups(random, 577, 12);
  const Structure structure = MakeStructure(RuleTable::Preset(RulePreset::kCausal), groups);
  EXPECT_EQ(CountVisiblePairs(structure), 577 * 578 / 2);
}

}  // namespace
}  // namespace structattn
