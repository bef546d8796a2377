// StepUploader: what the kernels find at the addresses they are given is the batch, and around it
// only what does nothing; and equal shapes have equal addresses.
#include "server/model/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

namespace structattn {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr int kHalf = 2;
constexpr float kFrequencies[] = {1.0f, 0.01f};

RotaryAngles Angles() {
  return RotaryAngles({.theta = 1e4, .scaling = {}, .frequency_divisors = {}}, 2 * kHalf,
                      2 * kHalf);
}

// Three sequences that decode: `blocks` of each in its table, one or two splits.
StepBatch DecodingBatch(int sequences, int stride) {
  StepBatch batch;
  batch.block_table_stride = stride;
  for (int s = 0; s < sequences; ++s) {
    batch.token_ids.push_back(10 + s);
    batch.positions.push_back(300 + s);
    batch.slots.push_back(1000 + s);
    for (int b = 0; b < stride; ++b) batch.block_tables.push_back(100 * s + b);
    batch.logit_rows.push_back(s);
    batch.work.intervals.push_back({.begin = 0, .end = 301 + s});
    batch.work.generated.push_back({.sequence = s,
                                    .row_begin = s,
                                    .query_begin = 300 + s,
                                    .query_count = 1,
                                    .interval_begin = s,
                                    .interval_end = s + 1,
                                    .keys_before = 300 + s,
                                    .sees_itself = 1,
                                    .partial_begin = 2 * s});
    batch.work.splits.push_back({.tile_begin = s, .tile_count = 1, .rank_begin = 0});
    batch.work.splits.push_back({.tile_begin = s, .tile_count = 1, .rank_begin = kSplitKeys});
  }
  batch.work.partials = 2 * sequences;
  return batch;
}

template <typename T>
std::vector<T> Array(const T* values, int count) {
  return {values, values + count};
}

void ExpectHolds(const StepInputs& inputs, const StepBatch& batch) {
  const int rows = static_cast<int>(batch.tokens());
  EXPECT_THAT(Array(inputs.token_ids, rows), ElementsAreArray(batch.token_ids));
  EXPECT_THAT(Array(inputs.slots, rows), ElementsAreArray(batch.slots));
  EXPECT_THAT(Array(inputs.logit_rows, static_cast<int>(batch.logit_rows.size())),
              ElementsAreArray(batch.logit_rows));
  const int stride = batch.block_table_stride;
  for (size_t i = 0; i < batch.block_tables.size(); ++i) {
    const size_t sequence = i / stride;
    EXPECT_EQ(inputs.block_tables[sequence * inputs.shape.block_table_stride + i % stride],
              batch.block_tables[i]);
  }
  for (size_t i = 0; i < batch.work.intervals.size(); ++i) {
    EXPECT_EQ(inputs.work.intervals[i].end, batch.work.intervals[i].end);
  }
  for (size_t i = 0; i < batch.work.generated.size(); ++i) {
    EXPECT_EQ(inputs.work.generated[i].row_begin, batch.work.generated[i].row_begin);
    EXPECT_EQ(inputs.work.generated[i].keys(), batch.work.generated[i].keys());
    EXPECT_EQ(inputs.work.generated[i].partial_begin, batch.work.generated[i].partial_begin);
  }
  for (size_t i = 0; i < batch.work.splits.size(); ++i) {
    EXPECT_EQ(inputs.work.splits[i].tile_begin, batch.work.splits[i].tile_begin);
    EXPECT_EQ(inputs.work.splits[i].rank_begin, batch.work.splits[i].rank_begin);
  }
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < kHalf; ++i) {
      const float angle = static_cast<float>(batch.positions[row]) * kFrequencies[i];
      EXPECT_EQ(inputs.cosine[row * kHalf + i], std::cos(angle));
      EXPECT_EQ(inputs.sine[row * kHalf + i], std::sin(angle));
    }
  }
}

TEST(StepUploaderTest, OnCpuTheArraysAreTheBatchsOwn) {
  StepUploader uploader({}, Angles());
  const StepBatch batch = DecodingBatch(3, 4);
  EXPECT_FALSE(uploader.Reserve(ShapeOf(batch)));
  const StepInputs inputs = uploader.Upload(batch, ShapeOf(batch));
  EXPECT_EQ(inputs.token_ids, batch.token_ids.data());
  ExpectHolds(inputs, batch);
}

TEST(StepUploaderTest, CopiesAnExactShape) {
  StepUploader uploader({.kind = DeviceKind::kEmulated}, Angles());
  for (const int sequences : {3, 1, 40}) {
    const StepBatch batch = DecodingBatch(sequences, 20);
    const StepShape shape = ShapeOf(batch);
    uploader.Reserve(shape);
    ExpectHolds(uploader.Upload(batch, shape), batch);
  }
}

TEST(StepUploaderTest, FillsAPaddedShapeWithRowsThatDoNothing) {
  StepUploader uploader({.kind = DeviceKind::kEmulated}, Angles());
  const StepBatch big = DecodingBatch(9, 7);  // Leaves its contents in the buffers.
  const StepBatch batch = DecodingBatch(3, 5);
  const StepShape shape = PaddedShape(ShapeOf(batch));
  uploader.Reserve(PaddedShape(ShapeOf(big)));
  uploader.Upload(big, PaddedShape(ShapeOf(big)));
  uploader.Reserve(shape);
  const StepInputs inputs = uploader.Upload(batch, shape);
  ExpectHolds(inputs, batch);
  ASSERT_EQ(shape.rows, 4);
  EXPECT_EQ(inputs.token_ids[3], 0);
  EXPECT_EQ(inputs.slots[3], -1);
  EXPECT_EQ(inputs.logit_rows[3], 0);
  EXPECT_EQ(inputs.work.generated[3].row_begin, 3);  // Its own: no two tiles write one row.
  EXPECT_EQ(inputs.work.generated[3].query_count, 1);
  EXPECT_EQ(inputs.work.generated[3].keys(), 0);
  ASSERT_EQ(shape.work.splits, 8);
  for (int i = 6; i < 8; ++i) {
    EXPECT_EQ(inputs.work.splits[i].tile_count, 0);
    EXPECT_GT(inputs.work.splits[i].rank_begin, 1 << 29);
  }
}

TEST(StepUploaderTest, EqualShapesHaveEqualAddressesUntilItMoves) {
  StepUploader uploader({.kind = DeviceKind::kEmulated}, Angles());
  const StepShape three = PaddedShape(ShapeOf(DecodingBatch(3, 5)));
  const StepShape four = PaddedShape(ShapeOf(DecodingBatch(4, 6)));
  EXPECT_EQ(three, four);
  EXPECT_TRUE(uploader.Reserve(three));
  const StepInputs first = uploader.Upload(DecodingBatch(3, 5), three);
  EXPECT_FALSE(uploader.Reserve(four));
  const StepInputs second = uploader.Upload(DecodingBatch(4, 6), four);
  EXPECT_EQ(first.token_ids, second.token_ids);
  EXPECT_EQ(first.work.splits, second.work.splits);
  EXPECT_EQ(first.sine, second.sine);
  EXPECT_TRUE(uploader.Reserve(PaddedShape(ShapeOf(DecodingBatch(64, 500)))));
}

TEST(StepShapeTest, PaddingHoldsTheShapeAndLittleMore) {
  for (int rows = 1; rows <= 300; ++rows) {
    const StepShape exact = ShapeOf(DecodingBatch(rows, 3));
    ASSERT_TRUE(IsDecodeShape(exact));
    const StepShape padded = PaddedShape(exact);
    EXPECT_TRUE(IsDecodeShape(padded));
    EXPECT_GE(padded.rows, rows);
    EXPECT_LE(padded.rows, rows <= 8 ? 2 * rows - 1 + (rows == 1) : rows * 5 / 4);
    EXPECT_GE(padded.work.splits, exact.work.splits);
    EXPECT_GE(padded.work.intervals, exact.work.intervals);
    EXPECT_GE(padded.work.partials, exact.work.partials);
    EXPECT_GE(padded.block_table_stride, exact.block_table_stride);
    EXPECT_EQ(PaddedShape(padded), padded);
  }
}

TEST(StepShapeTest, PromptsAreNoDecodeShape) {
  StepBatch batch = DecodingBatch(3, 4);
  batch.logit_rows.pop_back();
  EXPECT_FALSE(IsDecodeShape(ShapeOf(batch)));
  batch = DecodingBatch(3, 4);
  batch.token_ids.push_back(1);
  EXPECT_FALSE(IsDecodeShape(ShapeOf(batch)));
  EXPECT_FALSE(IsDecodeShape(StepShape()));
}

}  // namespace
}  // namespace structattn
