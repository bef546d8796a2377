// BuildBatch: rows, slots, block tables, tiles and logit rows of a mixed step.
#include "server/engine/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

  fake::FakeTokenizer tokenizer_;
  StepBatch batch_;
};

TEST_F(BatchBuilderTest, LaysOutAChunkInTheMiddleAndOneThatReachesTheEnd) {
  const auto middle = MakeSequence(40, {7, 3, 5});
  middle->AddComputed(14);
  const auto last = MakeSequence(18, {9, 2});
  last->AddComputed(17);
  const std::vector<SequenceChunk> chunks = {{middle.get(), 4}, {last.get(), 1}};
  BuildBatch(chunks, 16, &batch_);

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

TEST_F(BatchBuilderTest, KeepsNothingOfTheStepBefore) {
  const auto sequence = MakeSequence(20, {0, 1});
  const std::vector<SequenceChunk> whole = {{sequence.get(), 20}};
  BuildBatch(whole, 16, &batch_);
  const std::vector<SequenceChunk> part = {{sequence.get(), 2}};
  BuildBatch(part, 16, &batch_);
  EXPECT_EQ(batch_.tokens(), 2);
  EXPECT_EQ(batch_.positions.size(), 2u);
  EXPECT_EQ(batch_.slots.size(), 2u);
  EXPECT_EQ(batch_.work.tiles.size(), 1u);
  EXPECT_EQ(batch_.work.intervals.size(), 1u);
  EXPECT_THAT(batch_.logit_rows, IsEmpty());
}

}  // namespace
}  // namespace structattn
