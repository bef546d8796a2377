// Placement against its rule, and work-lists over a padded placement against MaySee: row by row the
// same keys, in the same order, only in other slots.
#include "kernels/attention/placement.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/attention/work_list.h"
#include "tests/kernels/attention/random_structure.h"

namespace structattn {
namespace {

TEST(PlacementTest, EveryRunBeginsAtTheAlignment) {
  const Structure structure =
      MakeStructure(RuleTable::Preset(RulePreset::kCausal), {0, 0, 0, 1, 1, 1, 1, 0, 2});
  Placement placement(4);
  placement.Extend(structure);
  const std::vector<int32_t> slots = {0, 1, 2, 4, 5, 6, 7, 8, 12};
  for (int token = 0; token < structure.size(); ++token) {
    EXPECT_EQ(placement.SlotOf(token), slots[token]) << token;
    EXPECT_EQ(placement.SlotsOf(token + 1), slots[token] + 1);
  }
  EXPECT_EQ(placement.SlotsOf(0), 0);
}

TEST(PlacementTest, WithAlignmentOneSlotsAreTokens) {
  Random random(1);
  const Structure structure = MakeStructure(RandomRule(random), RandomGroups(random, 100, 5));
  Placement placement;
  placement.Extend(structure);
  for (int token = 0; token < 100; ++token) EXPECT_EQ(placement.SlotOf(token), token);
}

// The slots that row `row` of the tile sees, in order.
std::vector<int32_t> SlotsOfRow(const WorkList& work, const QueryTile& tile, int row) {
  std::vector<int32_t> slots;
  for (int n = tile.interval_begin; n < tile.interval_end; ++n) {
    for (int32_t slot = work.intervals[n].begin; slot < work.intervals[n].end; ++slot) {
      slots.push_back(slot);
    }
  }
  EXPECT_GE(static_cast<int>(slots.size()), tile.KeysOfRow(row));
  slots.resize(tile.KeysOfRow(row));
  return slots;
}

TEST(PlacementTest, PaddedWorkListsNameTheSlotsOfTheKeysThatMaySeeNames) {
  for (int seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const RuleTable rule = RandomRule(random);
    const std::vector<int> groups = RandomGroups(random, Uniform(random, 1, 90), 6);
    Structure structure(rule, PositionPolicy::kSequential);
    VisibleIntervals visible(Placement(16 * Uniform(random, 1, 3)));
    for (int begin = 0; begin < static_cast<int>(groups.size());) {
      const int end = Uniform(random, begin + 1, static_cast<int>(groups.size()));
      for (int token = begin; token < end; ++token) structure.Append(groups[token]);
      visible.Extend(structure);
      WorkList work;
      AppendTiles({.structure = &structure,
                   .intervals = &visible,
                   .sequence = 0,
                   .row_begin = 0,
                   .query_begin = begin,
                   .query_end = end},
                  Uniform(random, 1, 20), &work);
      for (const QueryTile& tile : work.tiles) {
        for (int row = 0; row < tile.query_count; ++row) {
          std::vector<int32_t> expected;
          for (int key = 0; key <= tile.query_begin + row; ++key) {
            if (!MaySee(structure, tile.query_begin + row, key)) continue;
            expected.push_back(visible.placement().SlotOf(key));
          }
          ASSERT_EQ(SlotsOfRow(work, tile, row), expected);
        }
      }
      begin = end;
    }
  }
}

}  // namespace
}  // namespace structattn
