// What must not change one bit of a row: the batch around it, how its prompt was cut into chunks,
// where its blocks lie, tile size, threads, and everything that it does not see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/kernels/attention/kernels_under_test.h"
#include "tests/kernels/attention/paged_batch.h"

namespace structattn {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBfloat16, DType::kFloat16};

AttentionShape ShapeFor(Random& random) {
  constexpr int kRatios[] = {1, 2, 3, 7};
  constexpr int kHeadDims[] = {16, 64, 80, 128};
  return {.kv_dtype = kDTypes[Uniform(random, 0, 2)],
          .output_dtype = kDTypes[Uniform(random, 0, 2)],
          .block_size = 16 << Uniform(random, 0, 2),
          .kv_heads = Uniform(random, 1, 2),
          .ratio = kRatios[Uniform(random, 0, 3)],
          .head_dim = kHeadDims[Uniform(random, 0, 3)]};
}

// A seed, and what runs: 0 is what Attention takes for any type, n > 0 is one kernel for bfloat16.
class AttentionInvarianceTest : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  AttentionInvarianceTest() : random_(std::get<0>(GetParam())), shape_(ShapeFor(random_)) {
    const int choice = std::get<1>(GetParam());
    if (choice == 0) return;
    kernel_ = Bf16KernelsUnderTest()[choice - 1];
    shape_.kv_dtype = DType::kBfloat16;
    if (*kernel_ != nullptr && !(*kernel_)->supports(shape_.head_dim)) shape_.head_dim = 64;
  }

  SequenceTensors Sequence(int longest) {
    // Some are longer than a chunk of keys.
    const int length = Uniform(random_, 1, longest) + 200 * Uniform(random_, 0, 1);
    const auto groups = RandomGroups(random_, length, Uniform(random_, 1, 10));
    SequenceTensors sequence =
        RandomSequence(random_, shape_, MakeStructure(RandomRule(random_), groups));
    if (Uniform(random_, 0, 2) == 0) sequence.window = Uniform(random_, 1, length);
    return sequence;
  }

  std::vector<float> Run(std::span<const Part> parts, RunOptions options = {}) {
    options.kernel = kernel_;
    return RunBatch(shape_, parts, options);
  }

  std::vector<float> Alone(const SequenceTensors& sequence, const RunOptions& options = {}) {
    const Part part = {&sequence, 0, sequence.structure.size()};
    return Run({&part, 1}, options);
  }

  size_t RowElements() const { return size_t(shape_.heads()) * shape_.head_dim; }

  Random random_;
  AttentionShape shape_;
  std::optional<const AttentionKernel*> kernel_;
};

TEST_P(AttentionInvarianceTest, AloneEqualsInABatch) {
  std::vector<SequenceTensors> sequences;
  for (int s = 0; s < 4; ++s) sequences.push_back(Sequence(160));
  std::vector<Part> parts;
  std::vector<float> alone;
  for (const SequenceTensors& sequence : sequences) {
    parts.push_back({&sequence, 0, sequence.structure.size()});
    const std::vector<float> output = Alone(sequence);
    alone.insert(alone.end(), output.begin(), output.end());
  }
  EXPECT_TRUE(SameBits(Run(parts), alone));
}

TEST_P(AttentionInvarianceTest, AnyChunkingAndDecodingEqualWhole) {
  const SequenceTensors sequence = Sequence(200);
  const int length = sequence.structure.size();
  const std::vector<float> whole = Alone(sequence);
  for (const int most : {1, 7, 16, 100}) {
    std::vector<float> chunked;
    for (int begin = 0; begin < length;) {
      const Part part = {&sequence, begin, std::min(length, begin + Uniform(random_, 1, most))};
      const std::vector<float> output = Run({&part, 1});
      chunked.insert(chunked.end(), output.begin(), output.end());
      begin = part.end;
    }
    EXPECT_TRUE(SameBits(chunked, whole)) << "chunks of at most " << most;
  }
}

TEST_P(AttentionInvarianceTest, PlacementTileSizeAndThreadsDoNotMatter) {
  const SequenceTensors sequence = Sequence(300);
  const std::vector<float> first = Alone(sequence);
  for (int n = 0; n < 4; ++n) {
    const RunOptions options = {
        .placement_seed = random_(), .threads = 1 + n % 2, .tile_rows = Uniform(random_, 1, 64)};
    EXPECT_TRUE(SameBits(Alone(sequence, options), first)) << "tiles of " << options.tile_rows;
  }
}

TEST_P(AttentionInvarianceTest, BlockSizeDoesNotMatter) {
  const SequenceTensors sequence = Sequence(200);
  const std::vector<float> first = Alone(sequence);
  for (const int block_size : {16, 32, 48, 64, 128}) {
    shape_.block_size = block_size;
    EXPECT_TRUE(SameBits(Alone(sequence), first)) << "blocks of " << block_size;
  }
}

// Questions that do not see each other, in two orders: each question's rows keep their bits, though
// their keys moved to other indices, lanes and blocks.
TEST_P(AttentionInvarianceTest, PermutedInvisibleGroupsDoNotMatter) {
  const int context = Uniform(random_, 0, 50);
  std::vector<int> lengths;
  for (int g = 1; g <= 4; ++g) lengths.push_back(Uniform(random_, 1, 40));
  const auto build = [&](std::vector<int> order) {
    std::vector<int> groups(context, 0);
    for (const int g : order) groups.insert(groups.end(), lengths[g - 1], g);
    return MakeStructure(RuleTable::Preset(RulePreset::kShared), groups);
  };
  const std::vector<int> orders[] = {{1, 2, 3, 4}, {3, 1, 4, 2}};
  SequenceTensors original = RandomSequence(random_, shape_, build(orders[0]));
  SequenceTensors permuted = original;
  permuted.structure = build(orders[1]);

  // Where group g begins under each order. The context is the same.
  const auto begin_of = [&](const std::vector<int>& order, int group) {
    int begin = context;
    for (const int g : order) {
      if (g == group) break;
      begin += lengths[g - 1];
    }
    return begin;
  };
  for (int g = 1; g <= 4; ++g) {
    const auto move = [&](const std::vector<float>& from, std::vector<float>* to) {
      const size_t width = from.size() / original.structure.size();
      std::copy_n(from.begin() + begin_of(orders[0], g) * width, lengths[g - 1] * width,
                  to->begin() + begin_of(orders[1], g) * width);
    };
    move(original.query, &permuted.query);
    move(original.key, &permuted.key);
    move(original.value, &permuted.value);
  }
  const std::vector<float> a = Alone(original);
  const std::vector<float> b = Alone(permuted);
  for (int g = 1; g <= 4; ++g) {
    const size_t size = lengths[g - 1] * RowElements();
    EXPECT_TRUE(SameBits(std::span(a).subspan(begin_of(orders[0], g) * RowElements(), size),
                         std::span(b).subspan(begin_of(orders[1], g) * RowElements(), size)))
        << "group " << g;
  }
}

// NaN in one token's key or value, or infinity in both, reaches exactly the rows that see it, not
// the earlier rows of the same tile.
TEST_P(AttentionInvarianceTest, OneBadKeyReachesOnlyThoseWhoSeeIt) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const SequenceTensors clean = Sequence(100);
  const int length = clean.structure.size();
  const std::vector<float> expected = Alone(clean);
  for (const auto& [bad_key, bad_value] :
       {std::pair(kNan, 1.0f), std::pair(1.0f, kNan), std::pair(kInfinity, kInfinity)}) {
    SequenceTensors sequence = clean;
    const int key = Uniform(random_, 0, length - 1);
    const size_t width = size_t(shape_.kv_heads) * shape_.head_dim;
    std::fill_n(sequence.key.begin() + key * width, width, bad_key);
    std::fill_n(sequence.value.begin() + key * width, width, bad_value);
    const std::vector<float> output = Alone(sequence);
    for (int i = 0; i < length; ++i) {
      const auto row = std::span(output).subspan(i * RowElements(), RowElements());
      if (clean.Sees(i, key)) {
        EXPECT_FALSE(std::isfinite(row[0])) << "row " << i << " sees bad key " << key;
      } else {
        EXPECT_TRUE(SameBits(row, std::span(expected).subspan(i * RowElements(), RowElements())))
            << "row " << i << " does not see bad key " << key;
      }
    }
  }
}

// Rows that a loose comparison would let pass: one ulp is a difference.
TEST(SameBitsTest, OneUlpIsADifference) {
  const std::vector<float> a = {1.0f, 2.0f};
  const std::vector<float> b = {1.0f, std::nextafter(2.0f, 3.0f)};
  EXPECT_TRUE(SameBits(a, a));
  EXPECT_FALSE(SameBits(a, b));
}

INSTANTIATE_TEST_SUITE_P(
    Seeds, AttentionInvarianceTest,
    testing::Combine(testing::Range(0, 12),
                     testing::Range(0, 1 + static_cast<int>(Bf16KernelsUnderTest().size()))));

}  // namespace
}  // namespace structattn
