// BuildBatch: rows, slots, block tables, tiles and logit rows of a mixed step.
#include "server/engine/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kBlockSize = 16;

class BatchBuilderTest : public ::testing::Test {
 protected:
  // Tokens 100, 101, ... of the given groups.
  std::unique_ptr<Sequence> MakeSequence(const std::vector<int>& groups) {
    Sequence::Tokens tokens = {.ids = {},
                               .structure = Structure(RuleTable::Preset(RulePreset::kCausal),
                                                      PositionPolicy::kSequential)};
    for (const int group : groups) {
      tokens.ids.push_back(100 + tokens.structure.size());
      tokens.structure.Append(group);
    }
    auto sequence = std::make_unique<Sequence>(nullptr, std::move(tokens), CachePolicy(),
                                               SequenceModel{.tokenizer = &tokenizer_,
                                                             .eos_token_ids = {},
                                                             .context_length = 4096,
                                                             .block_size = kBlockSize});
    sequence->blocks().SetLogitTokens({sequence->size() - 1});
    return sequence;
  }

  // A prompt of group 0 with `generated` more tokens.
  std::unique_ptr<Sequence> MakeGrownSequence(int tokens, int generated) {
    auto sequence = MakeSequence(std::vector<int>(tokens, 0));
    for (int i = 0; i < generated; ++i) {
      sequence->AppendGenerated(50 + i, 0);
    }
    return sequence;
  }

  // Plans at most `tokens` more of the sequence.
  std::vector<TokenRange> Plan(Sequence* sequence, int32_t tokens) {
    AwaitedKeys awaited;
    PlanResources resources = {.tokens = tokens, .pool = &pool_, .awaited = &awaited};
    std::vector<TokenRange> ranges;
    EXPECT_TRUE(sequence->blocks().Plan(&resources, &ranges));
    return ranges;
  }

  int64_t SlotIn(const Sequence& sequence, int entry, int offset) const {
    return int64_t{sequence.blocks().table()[entry]} * kBlockSize + offset;
  }

  fake::FakeTokenizer tokenizer_;
  BlockPool pool_{1000};
  StepBatch batch_;
};

TEST_F(BatchBuilderTest, LaysOutAChunkInTheMiddleAndOneThatReachesTheEnd) {
  const auto middle = MakeSequence(std::vector<int>(40, 0));
  Plan(middle.get(), 14);
  const auto last = MakeSequence(std::vector<int>(18, 0));
  Plan(last.get(), 17);
  const auto middle_ranges = Plan(middle.get(), 4);
  const auto last_ranges = Plan(last.get(), 1);
  const std::vector<SequenceChunk> chunks = {{middle.get(), middle_ranges},
                                             {last.get(), last_ranges}};
  BuildBatch(chunks, {}, &batch_);

  EXPECT_THAT(batch_.token_ids, ElementsAre(114, 115, 116, 117, 117));
  EXPECT_THAT(batch_.positions, ElementsAre(14, 15, 16, 17, 17));
  EXPECT_THAT(batch_.slots,
              ElementsAre(SlotIn(*middle, 0, 14), SlotIn(*middle, 0, 15), SlotIn(*middle, 1, 0),
                          SlotIn(*middle, 1, 1), SlotIn(*last, 1, 1)));
  EXPECT_EQ(batch_.block_table_stride, 2);
  std::vector<int32_t> tables;
  for (const auto* sequence : {middle.get(), last.get()}) {
    const auto table = sequence->blocks().table();
    tables.insert(tables.end(), table.begin(), table.end());
  }
  EXPECT_EQ(batch_.block_tables, tables);
  EXPECT_THAT(batch_.logit_rows, ElementsAre(4));
  ASSERT_EQ(batch_.work.tiles.size(), 2u);
  EXPECT_EQ(batch_.work.tiles[0].query_begin, 14);
  EXPECT_EQ(batch_.work.tiles[0].query_count, 4);
  EXPECT_EQ(batch_.work.tiles[1].sequence, 1);
  EXPECT_EQ(batch_.work.tiles[1].row_begin, 4);
}

TEST_F(BatchBuilderTest, AsksForTheLogitsOfWantedTokensInTheStepThatComputesThem) {
  const auto sequence = MakeSequence(std::vector<int>(40, 0));
  sequence->blocks().SetLogitTokens({0, 5, 17, 18, 39});
  const auto other = MakeSequence(std::vector<int>(3, 0));
  std::vector<std::vector<int32_t>> rows;
  for (const int tokens : {6, 11, 20, 3}) {
    const auto ranges = Plan(sequence.get(), tokens);
    const auto other_ranges = std::vector<TokenRange>{{0, 1}};
    Plan(other.get(), 1);
    const std::vector<SequenceChunk> chunks = {{other.get(), other_ranges},
                                               {sequence.get(), ranges}};
    EXPECT_THAT(LogitTokens(chunks[0]), IsEmpty());
    BuildBatch(chunks, {}, &batch_);
    rows.push_back(batch_.logit_rows);
    sequence->blocks().MarkRead(LogitTokens(chunks[1]).size());
  }
  EXPECT_THAT(rows, ElementsAre(ElementsAre(1, 6), IsEmpty(), ElementsAre(1, 2), ElementsAre(3)));
  EXPECT_THAT(sequence->blocks().logit_tokens(), IsEmpty());
}

TEST_F(BatchBuilderTest, EveryRunBeginsABlockAndShorterTablesAreFilledUp) {
  const auto runs = MakeSequence({0, 0, 0, 1, 1, 0});
  const auto single = MakeSequence({0});
  const auto runs_ranges = Plan(runs.get(), 6);
  const auto single_ranges = Plan(single.get(), 1);
  const std::vector<SequenceChunk> chunks = {{runs.get(), runs_ranges},
                                             {single.get(), single_ranges}};
  BuildBatch(chunks, {}, &batch_);
  EXPECT_THAT(batch_.slots,
              ElementsAre(SlotIn(*runs, 0, 0), SlotIn(*runs, 0, 1), SlotIn(*runs, 0, 2),
                          SlotIn(*runs, 1, 0), SlotIn(*runs, 1, 1), SlotIn(*runs, 2, 0),
                          SlotIn(*single, 0, 0)));
  EXPECT_EQ(batch_.block_table_stride, 3);
  EXPECT_THAT(batch_.block_tables,
              ElementsAre(runs->blocks().table()[0], runs->blocks().table()[1],
                          runs->blocks().table()[2], single->blocks().table()[0], -1, -1));
}

TEST_F(BatchBuilderTest, RangesOfOneChunkAreRowsInSuccession) {
  const auto sequence = MakeSequence(std::vector<int>(40, 0));
  Plan(sequence.get(), 40);
  const std::vector<TokenRange> ranges = {{3, 5}, {20, 21}, {39, 40}};
  const std::vector<SequenceChunk> chunks = {{sequence.get(), ranges}};
  BuildBatch(chunks, {}, &batch_);
  EXPECT_THAT(batch_.token_ids, ElementsAre(103, 104, 120, 139));
  EXPECT_THAT(batch_.logit_rows, ElementsAre(3));
  ASSERT_EQ(batch_.work.tiles.size(), 3u);
  const std::vector<int32_t> rows = {0, 2, 3};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(batch_.work.tiles[i].row_begin, rows[i]);
    EXPECT_EQ(batch_.work.tiles[i].query_begin, ranges[i].begin);
    EXPECT_EQ(batch_.work.tiles[i].KeysOfRow(0), ranges[i].begin + 1);
  }
}

// What a device that splits keys asks for.
constexpr Tiling kSplitTiling = {.tile_tokens = 8, .split_kv_branches = 4};

TEST_F(BatchBuilderTest, CutsByRoleWhereTheDeviceSplitsKeys) {
  const auto prompt = MakeGrownSequence(20, 0);
  const auto both = MakeGrownSequence(10, 3);  // Recomputed: its generated tokens stay generated.
  Plan(both.get(), 8);
  const auto decoding = MakeGrownSequence(300, 1);
  Plan(decoding.get(), 300);
  const auto prompt_ranges = Plan(prompt.get(), 20);
  const auto both_ranges = Plan(both.get(), 5);
  const auto decoding_ranges = Plan(decoding.get(), 1);
  const std::vector<SequenceChunk> chunks = {
      {prompt.get(), prompt_ranges}, {both.get(), both_ranges}, {decoding.get(), decoding_ranges}};
  BuildBatch(chunks, kSplitTiling, &batch_);

  // The prompt's tiles, those with most keys first; rows stay in the order of the chunks.
  std::vector<std::vector<int32_t>> tiles;
  for (const QueryTile& tile : batch_.work.tiles) {
    tiles.push_back({tile.sequence, tile.row_begin, tile.query_begin, tile.query_count});
  }
  EXPECT_THAT(tiles, ElementsAre(ElementsAre(0, 16, 16, 4), ElementsAre(0, 8, 8, 8),
                                 ElementsAre(1, 20, 8, 2), ElementsAre(0, 0, 0, 8)));
  std::vector<std::vector<int32_t>> generated;
  for (const QueryTile& tile : batch_.work.generated) {
    generated.push_back(
        {tile.sequence, tile.row_begin, tile.query_begin, tile.query_count, tile.partial_begin});
  }
  EXPECT_THAT(generated, ElementsAre(ElementsAre(1, 22, 10, 1, 0), ElementsAre(1, 23, 11, 1, 1),
                                     ElementsAre(1, 24, 12, 1, 2), ElementsAre(2, 25, 300, 1, 3)));
  std::vector<std::vector<int32_t>> splits;
  for (const KeySplit& split : batch_.work.splits) {
    splits.push_back({split.tile_begin, split.tile_count, split.rank_begin});
  }
  EXPECT_THAT(splits, ElementsAre(ElementsAre(0, 1, 0), ElementsAre(1, 1, 0), ElementsAre(2, 1, 0),
                                  ElementsAre(3, 1, 0), ElementsAre(3, 1, kSplitKeys)));
  EXPECT_EQ(batch_.work.partials, 5);
  EXPECT_THAT(batch_.logit_rows, ElementsAre(19, 24, 25));
}

// However a sequence is cut into chunks, its tokens go to the same list with the same keys.
TEST_F(BatchBuilderTest, TheChunkingChangesNoTokensRole) {
  constexpr int kPrompt = 37;
  constexpr int kAll = kPrompt + 6;
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const auto sequence = MakeGrownSequence(kPrompt, kAll - kPrompt);
    std::vector<int> role(kAll, 0);  // 1: prompt, 2: generated.
    while (sequence->blocks().left() > 0) {
      const int most = sequence->blocks().left();
      const auto ranges = Plan(sequence.get(), std::uniform_int_distribution(1, most)(random));
      const SequenceChunk chunk = {sequence.get(), ranges};
      BuildBatch({&chunk, 1}, kSplitTiling, &batch_);
      const auto note = [&](const QueryTile& tile, int as) {
        for (int row = 0; row < tile.query_count; ++row) {
          EXPECT_EQ(role[tile.query_begin + row], 0);
          role[tile.query_begin + row] = as;
          EXPECT_EQ(tile.KeysOfRow(row), tile.query_begin + row + 1);
          EXPECT_EQ(batch_.positions[tile.row_begin + row], tile.query_begin + row);
        }
      };
      for (const QueryTile& tile : batch_.work.tiles) note(tile, 1);
      for (const QueryTile& tile : batch_.work.generated) note(tile, 2);
    }
    for (int i = 0; i < kAll; ++i) EXPECT_EQ(role[i], i < kPrompt ? 1 : 2) << "token " << i;
  }
}

TEST_F(BatchBuilderTest, KeepsTheOrderOfTilesWhereTheDeviceDoesNotSplit) {
  const auto sequence = MakeGrownSequence(30, 2);
  const auto ranges = Plan(sequence.get(), 32);
  const std::vector<SequenceChunk> chunks = {{sequence.get(), ranges}};
  BuildBatch(chunks, {.tile_tokens = 10, .split_kv_branches = 0}, &batch_);
  std::vector<int32_t> begins;
  for (const QueryTile& tile : batch_.work.tiles) begins.push_back(tile.query_begin);
  EXPECT_THAT(begins, ElementsAre(0, 10, 20, 30));
  EXPECT_THAT(batch_.work.generated, IsEmpty());
  EXPECT_THAT(batch_.work.splits, IsEmpty());
}

TEST_F(BatchBuilderTest, KeepsNothingOfTheStepBefore) {
  const auto sequence = MakeSequence(std::vector<int>(20, 0));
  Plan(sequence.get(), 20);
  const std::vector<TokenRange> whole = {{0, 20}};
  const SequenceChunk first = {sequence.get(), whole};
  BuildBatch({&first, 1}, {}, &batch_);
  const std::vector<TokenRange> part = {{0, 2}};
  const SequenceChunk second = {sequence.get(), part};
  BuildBatch({&second, 1}, {}, &batch_);
  EXPECT_EQ(batch_.tokens(), 2);
  EXPECT_EQ(batch_.positions.size(), 2u);
  EXPECT_EQ(batch_.slots.size(), 2u);
  EXPECT_EQ(batch_.work.tiles.size(), 1u);
  EXPECT_EQ(batch_.work.intervals.size(), 1u);
  EXPECT_THAT(batch_.logit_rows, IsEmpty());
}

}  // namespace
}  // namespace structattn::engine
