// The CPU kernel against the double-precision reference, within a bound derived from norms and
// lengths, and the tests of these tests.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "tests/kernels/attention/kernels_under_test.h"
#include "tests/kernels/attention/paged_batch.h"

namespace structattn {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBfloat16, DType::kFloat16};
constexpr int kBlockSizes[] = {16, 32, 64};
constexpr int kRatios[] = {1, 2, 3, 4, 7, 8};
constexpr int kHeadDims[] = {64, 80, 96, 128, 16, 256};
constexpr int kLengths[] = {1, 17, 37, 127, 577};

// The result's own rounding: half a unit in the last place of its type.
double OutputRounding(DType dtype, double value) {
  switch (dtype) {
    case DType::kFloat32:
      return std::ldexp(std::abs(value), -24);
    case DType::kBfloat16:
      return std::ldexp(std::abs(value), -8);
    default:
      return std::ldexp(std::abs(value), -11) + std::ldexp(1.0, -25);
  }
}

// The number of elements of `output` that are NaN or outside the tolerance, among up to `rows`
// tokens.
int CountWrong(const AttentionShape& shape, const Part& part, std::span<const float> output,
               int rows = 64) {
  Random random(99);
  std::set<int> tokens = {part.begin, part.end - 1};
  for (int n = 0; n < rows; ++n) tokens.insert(Uniform(random, part.begin, part.end - 1));
  int wrong = 0;
  for (const int token : tokens) {
    for (int head = 0; head < shape.heads(); ++head) {
      const ReferenceRow row = ReferenceAttention(*part.sequence, shape.Heads(), token, head);
      const int64_t begin = (int64_t{token - part.begin} * shape.heads() + head) * shape.head_dim;
      for (int dim = 0; dim < shape.head_dim; ++dim) {
        const double allowed =
            row.tolerance[dim] +
            OutputRounding(shape.output_dtype, std::abs(row.output[dim]) + row.tolerance[dim]);
        wrong += !(std::abs(output[begin + dim] - row.output[dim]) <= allowed);
      }
    }
  }
  return wrong;
}

AttentionShape RandomShape(Random& random) {
  return {.kv_dtype = kDTypes[Uniform(random, 0, 2)],
          .output_dtype = kDTypes[Uniform(random, 0, 2)],
          .block_size = kBlockSizes[Uniform(random, 0, 2)],
          .kv_heads = Uniform(random, 1, 3),
          .ratio = kRatios[Uniform(random, 0, 5)],
          .head_dim = kHeadDims[Uniform(random, 0, 5)]};
}

void ExpectReference(const AttentionShape& shape, std::span<const Part> parts,
                     const RunOptions& options) {
  SCOPED_TRACE(testing::Message() << Name(shape.kv_dtype) << " to " << Name(shape.output_dtype)
                                  << ", blocks of " << shape.block_size << ", " << shape.kv_heads
                                  << " x " << shape.ratio << " heads of " << shape.head_dim);
  const std::vector<float> output = RunBatch(shape, parts, options);
  size_t begin = 0;
  for (const Part& part : parts) {
    const size_t size = size_t(part.end - part.begin) * shape.heads() * shape.head_dim;
    EXPECT_EQ(CountWrong(shape, part, std::span(output).subspan(begin, size)), 0)
        << "tokens " << part.begin << " to " << part.end;
    begin += size;
  }
}

// Every head_dim with every type, every ratio and block size in turn.
TEST(AttentionTest, EveryShapeEqualsReference) {
  int turn = 0;
  for (const int head_dim : kHeadDims) {
    for (const DType dtype : kDTypes) {
      for (const int block_size : kBlockSizes) {
        Random random(turn);
        const AttentionShape shape = {.kv_dtype = dtype,
                                      .output_dtype = kDTypes[turn % 3],
                                      .block_size = block_size,
                                      .kv_heads = 1 + turn % 2,
                                      .ratio = kRatios[turn % 6],
                                      .head_dim = head_dim};
        const Structure structure =
            MakeStructure(RandomRule(random), RandomGroups(random, 70, 1 + turn % 7));
        const SequenceTensors sequence = RandomSequence(random, shape, structure);
        ExpectReference(shape, {{{&sequence, 0, 70}}}, {});
        ++turn;
      }
    }
  }
}

TEST(AttentionTest, EveryWindowEqualsReference) {
  for (const int window : {1, 5, 16, 100, 300}) {
    for (int rule = 0; rule < 6; ++rule) {
      SCOPED_TRACE(testing::Message() << "window " << window << ", rule " << rule);
      Random random(1000 * rule + window);
      const AttentionShape shape = RandomShape(random);
      const RuleTable table = rule < 4 ? RuleTable::Preset(kPresets[rule]) : RandomTable(random);
      SequenceTensors sequence = RandomSequence(
          random, shape, MakeStructure(table, RandomGroups(random, 400, Uniform(random, 1, 20))));
      sequence.window = window;
      ExpectReference(shape, {{{&sequence, 0, 400}}}, {.threads = 2});
    }
  }
}

TEST(AttentionTest, EveryRuleAndLengthEqualsReference) {
  for (const int length : kLengths) {
    for (int rule = 0; rule < 6; ++rule) {
      SCOPED_TRACE(testing::Message() << "length " << length << ", rule " << rule);
      Random random(1000 * rule + length);
      const AttentionShape shape = RandomShape(random);
      const RuleTable table = rule < 4 ? RuleTable::Preset(kPresets[rule]) : RandomTable(random);
      const Structure structure =
          MakeStructure(table, RandomGroups(random, length, Uniform(random, 1, 64)));
      const SequenceTensors sequence = RandomSequence(random, shape, structure);
      ExpectReference(shape, {{{&sequence, 0, length}}}, {.threads = 2});
    }
  }
}

TEST(AttentionTest, MixedBatchesEqualReference) {
  for (int seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const AttentionShape shape = RandomShape(random);
    std::vector<SequenceTensors> sequences;
    for (int s = 0; s < 5; ++s) {
      const int length = Uniform(random, 1, 150);
      const auto groups = RandomGroups(random, length, Uniform(random, 1, 12));
      sequences.push_back(RandomSequence(random, shape, MakeStructure(RandomRule(random), groups)));
    }
    std::vector<Part> parts;  // Whole prompts, chunks, and single generated tokens.
    for (const SequenceTensors& sequence : sequences) {
      const int length = sequence.structure.size();
      const int begin = Uniform(random, 0, 2) == 0 ? length - 1 : Uniform(random, 0, length - 1);
      parts.push_back({&sequence, begin, Uniform(random, begin + 1, length)});
    }
    ExpectReference(
        shape, parts,
        {.placement_seed = random(), .threads = 2, .tile_rows = Uniform(random, 1, 40)});
  }
}

// Scores lie far apart, so all weight is on a few keys, and exp is near zero for the others.
TEST(AttentionTest, LargeScoresStayExactEnough) {
  Random random(5);
  const AttentionShape shape = {.ratio = 3};
  SequenceTensors sequence = RandomSequence(
      random, shape,
      MakeStructure(RuleTable::Preset(RulePreset::kAnchored), RandomGroups(random, 90, 4)));
  for (float& x : sequence.query) x *= 30.0f;
  ExpectReference(shape, {{{&sequence, 0, 90}}}, {});
}

// A rule table that the server would refuse gives no NaN either, and reads nothing.
TEST(AttentionTest, RowsThatSeeNothingAreZero) {
  RuleTable table = RuleTable::Preset(RulePreset::kIsolated);
  table.visible[2] = 0;
  Random random(6);
  const AttentionShape shape;
  const SequenceTensors sequence =
      RandomSequence(random, shape, MakeStructure(table, {2, 2, 1, 1, 2, 1, 2, 2}));
  ExpectReference(shape, {{{&sequence, 0, 8}}}, {});
}

// The test of the tests: one visibility bit off in the work-list is found. What the first tile of a
// later group no longer sees, or sees in addition, changes numbers or hits poison.
TEST(AttentionTest, OneWrongVisibilityBitIsFound) {
  Random random(8);
  const AttentionShape shape = {.head_dim = 64};
  const SequenceTensors sequence = RandomSequence(
      random, shape,
      MakeStructure(RuleTable::Preset(RulePreset::kShared), {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
  const std::vector<Part> parts = {{&sequence, 8, 12}};  // Group 2 sees [0, 4) and [8, 12).
  ASSERT_EQ(CountWrong(shape, parts[0], RunBatch(shape, parts, {})), 0);
  const std::vector<KeyInterval> wrong_first = {{0, 3}, {1, 4}, {0, 5}};
  const std::vector<KeyInterval> wrong_second = {{7, 12}, {9, 12}, {8, 11}};
  const auto count_wrong_with = [&](int interval, KeyInterval wrong) {
    const RunOptions options = {
        .tamper = [&](WorkList* work) { work->intervals.at(interval) = wrong; }};
    return CountWrong(shape, parts[0], RunBatch(shape, parts, options));
  };
  for (const KeyInterval& wrong : wrong_first) EXPECT_GT(count_wrong_with(0, wrong), 0);
  for (const KeyInterval& wrong : wrong_second) EXPECT_GT(count_wrong_with(1, wrong), 0);
}

// Every instruction set of the kernel in float that this machine can run, not only its best.
TEST(AttentionTest, EveryInstructionSetEqualsReference) {
  for (const int64_t target : {HWY_SCALAR, HWY_AVX2, HWY_AVX3, HWY_NEON}) {
    if ((hwy::SupportedTargets() & target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    for (int seed = 0; seed < 12; ++seed) {
      Random random(seed);
      AttentionShape shape = RandomShape(random);
      shape.kv_dtype = kDTypes[seed % 3];
      const SequenceTensors sequence = RandomSequence(
          random, shape, MakeStructure(RandomRule(random), RandomGroups(random, 75, 1 + seed)));
      ExpectReference(shape, {{{&sequence, 0, 75}}}, {.kernel = nullptr});
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
}

// Every kernel for bfloat16 over every length of the last chunk of keys and every head_dim.
TEST(AttentionTest, EveryBf16KernelEqualsReference) {
  for (const AttentionKernel* kernel : Bf16KernelsUnderTest()) {
    SCOPED_TRACE(KernelName(kernel));
    for (int seed = 0; seed < 48; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      Random random(seed);
      AttentionShape shape = RandomShape(random);
      shape.kv_dtype = DType::kBfloat16;
      if (kernel != nullptr && !kernel->supports(shape.head_dim)) shape.head_dim = 96;
      const int length = seed < 40 ? Uniform(random, 1, 120) : 250 + Uniform(random, 0, 300);
      const SequenceTensors sequence = RandomSequence(
          random, shape,
          MakeStructure(RandomRule(random), RandomGroups(random, length, Uniform(random, 1, 12))));
      const int begin = seed < 40 ? 0 : length - Uniform(random, 1, 30);
      ExpectReference(shape, {{{&sequence, begin, length}}},
                      {.placement_seed = random(),
                       .tile_rows = Uniform(random, 1, kCpuTileRows),
                       .kernel = kernel});
    }
  }
}

TEST(AttentionTest, KernelNameTellsTheInstructionSet) {
  EXPECT_EQ(AttentionKernelName(DeviceKind::kCpu).substr(0, 4), "cpu/");
  EXPECT_GT(AttentionKernelName(DeviceKind::kCpu).size(), 4u);
}

}  // namespace
}  // namespace structattn
