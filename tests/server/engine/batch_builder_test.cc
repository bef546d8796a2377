// BuildBatch: rows, slots, block tables, tiles and logit rows of a mixed step.
#include "server/engine/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/server/engine/fakes.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class BatchBuilderTest : public ::testing::Test {
 protected:
  // Tokens 100, 101, ... of group 0.
  std::unique_ptr<Sequence> MakeSequence(int tokens, std::vector<int32_t> blocks) {
    Request request{.request_id = "",
                    .prompt = {.token_ids = {},
                               .segments = {},
                               .structure = Structure(RuleTable::Preset(RulePreset::kCausal),
                                                      PositionPolicy::kSequential)},
                    .sampling = {},
                    .stopping = {}};
    for (int i = 0; i < tokens; ++i) {
      request.prompt.token_ids.push_back(100 + i);
      request.prompt.structure.Append(0);
    }
    auto sequence = std::make_unique<Sequence>(
        1, std::move(request), std::make_shared<fake::RecordingSink>(),
        SequenceModel{.tokenizer = &tokenizer_, .eos_token_ids = {}, .context_length = 4096});
    sequence->blocks() = std::move(blocks);
    return sequence;
  }

  // The same with `generated` more tokens.
  std::unique_ptr<Sequence> MakeGrownSequence(int tokens, int generated) {
    auto sequence = MakeSequence(tokens, std::vector<int32_t>((tokens + generated + 15) / 16, 0));
    for (int i = 0; i < generated; ++i)
      sequence->Accept(SampledToken{50 + i, 0.0f, {}}, absl::Now());
    return sequence;
  }

  fake::FakeTokenizer tokenizer_;
  StepBatch batch_;
};

TEST_F(BatchBuilderTest, LaysOutAChunkInTheMiddleAndOneThatReachesTheEnd) {
  const auto middle = MakeSequence(40, {7, 3, 5});
  middle->AddComputed(14);
  const auto last = MakeSequence(18, {9, 2});
  last->AddComputed(17);
  const std::vector<SequenceChunk> chunks = {{middle.get(), 4}, {last.get(), 1}};
  BuildBatch(chunks, 16, {}, &batch_);

  EXPECT_THAT(batch_.token_ids, ElementsAre(114, 115, 116, 117, 117));
  EXPECT_THAT(batch_.positions, ElementsAre(14, 15, 16, 17, 17));
  EXPECT_THAT(batch_.slots, ElementsAre(7 * 16 + 14, 7 * 16 + 15, 3 * 16, 3 * 16 + 1, 2 * 16 + 1));
  EXPECT_EQ(batch_.block_table_stride, 3);
  EXPECT_THAT(batch_.block_tables, ElementsAre(7, 3, 5, 9, 2, -1));
  EXPECT_THAT(batch_.logit_rows, ElementsAre(4));
  ASSERT_EQ(batch_.work.tiles.size(), 2u);
  EXPECT_EQ(batch_.work.tiles[0].query_begin, 14);
  EXPECT_EQ(batch_.work.tiles[0].query_count, 4);
  EXPECT_EQ(batch_.work.tiles[1].sequence, 1);
  EXPECT_EQ(batch_.work.tiles[1].row_begin, 4);
}

// What a device that splits keys asks for.
constexpr Tiling kSplitTiling = {.tile_tokens = 8, .branches_together = 4};

TEST_F(BatchBuilderTest, CutsByRoleWhereTheDeviceSplitsKeys) {
  const auto prompt = MakeGrownSequence(20, 0);
  const auto both = MakeGrownSequence(10, 3);  // Recomputed: its generated tokens stay generated.
  both->AddComputed(8);
  const auto decoding = MakeGrownSequence(300, 1);
  decoding->AddComputed(300);
  const std::vector<SequenceChunk> chunks = {
      {prompt.get(), 20}, {both.get(), 5}, {decoding.get(), 1}};
  BuildBatch(chunks, 16, kSplitTiling, &batch_);

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
    while (sequence->computed() < kAll) {
      const int most = kAll - sequence->computed();
      const SequenceChunk chunk = {sequence.get(), std::uniform_int_distribution(1, most)(random)};
      BuildBatch({&chunk, 1}, 16, kSplitTiling, &batch_);
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
      sequence->AddComputed(chunk.tokens);
    }
    for (int i = 0; i < kAll; ++i) EXPECT_EQ(role[i], i < kPrompt ? 1 : 2) << "token " << i;
  }
}

TEST_F(BatchBuilderTest, KeepsTheOrderOfTilesWhereTheDeviceDoesNotSplit) {
  const auto sequence = MakeGrownSequence(30, 2);
  const std::vector<SequenceChunk> chunks = {{sequence.get(), 32}};
  BuildBatch(chunks, 16, {.tile_tokens = 10, .branches_together = 0}, &batch_);
  std::vector<int32_t> begins;
  for (const QueryTile& tile : batch_.work.tiles) begins.push_back(tile.query_begin);
  EXPECT_THAT(begins, ElementsAre(0, 10, 20, 30));
  EXPECT_THAT(batch_.work.generated, IsEmpty());
  EXPECT_THAT(batch_.work.splits, IsEmpty());
}

TEST_F(BatchBuilderTest, KeepsNothingOfTheStepBefore) {
  const auto sequence = MakeSequence(20, {0, 1});
  const std::vector<SequenceChunk> whole = {{sequence.get(), 20}};
  BuildBatch(whole, 16, {}, &batch_);
  const std::vector<SequenceChunk> part = {{sequence.get(), 2}};
  BuildBatch(part, 16, {}, &batch_);
  EXPECT_EQ(batch_.tokens(), 2);
  EXPECT_EQ(batch_.positions.size(), 2u);
  EXPECT_EQ(batch_.slots.size(), 2u);
  EXPECT_EQ(batch_.work.tiles.size(), 1u);
  EXPECT_EQ(batch_.work.intervals.size(), 1u);
  EXPECT_THAT(batch_.logit_rows, IsEmpty());
}

}  // namespace
}  // namespace structattn
