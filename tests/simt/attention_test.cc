// The CUDA kernels of attention on the emulator: within the derived tolerance of double precision,
// nothing reported, no tile visited that is not needed, and bits that depend on nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <list>
#include <string>
#include <vector>

#include "tests/simt/attention_cases.h"

namespace structattn {
namespace {

constexpr uint64_t kCoverSeed = 20261;

const simt::LaunchCounts* FindLaunch(const EmulatedResult& result, const std::string& kernel) {
  for (const simt::LaunchCounts& launch : result.launches) {
    if (launch.kernel == kernel) return &launch;
  }
  return nullptr;
}

// Expects that exactly the key tiles are visited that are needed.
void ExpectNeededWork(const AttentionBatch& batch, const EmulatedResult& result) {
  if (batch.shape.kv_dtype == DType::kFloat32) return;  // It meets visible keys one by one.
  if (!simt::CountsWork()) return;
  const TileWork needed = NeededTileWork(batch.shape, batch.parts);
  const simt::LaunchCounts* launch = FindLaunch(result, "attention (tile)");
  const simt::LaunchCounts none;
  if (launch == nullptr) launch = &none;
  EXPECT_EQ(launch->multiply_accumulates, needed.multiply_accumulates);
  EXPECT_EQ(launch->copies, needed.copies);
  EXPECT_EQ(launch->zero_fills, needed.zero_fills);
  EXPECT_EQ(launch->matrix_load_wavefronts.actual, launch->matrix_load_wavefronts.ideal);
}

void ExpectRight(const AttentionBatch& batch) {
  std::vector<float> first;
  for (const uint64_t schedule : simt::kSeeds) {
    SCOPED_TRACE(testing::Message() << "schedule " << schedule);
    const EmulatedResult result = RunEmulated(batch.shape, batch.parts, {.schedule = schedule});
    EXPECT_EQ(result.reports, "");
    ExpectNeededWork(batch, result);
    if (first.empty()) {
      first = result.output;
      EXPECT_EQ(CountWrong(batch.shape, batch.parts, first), 0);
    }
    EXPECT_TRUE(SameBits(result.output, first));
  }
}

const std::vector<AttentionCase>& Cover() {
  static const std::vector<AttentionCase> cases = PairwiseCases(kCoverSeed);
  return cases;
}

class SimtAttentionCoverTest : public testing::TestWithParam<int> {};

TEST_P(SimtAttentionCoverTest, EqualsReference) {
  const AttentionCase& attention_case = Cover()[GetParam()];
  SCOPED_TRACE(Describe(attention_case));
  std::printf("%s\n", Describe(attention_case).c_str());
  ExpectRight(MakeBatch(attention_case));
}

INSTANTIATE_TEST_SUITE_P(Pairwise, SimtAttentionCoverTest,
                         testing::Range(0, static_cast<int>(Cover().size())));

TEST(SimtAttentionTest, TheCoverHasAllPairs) {
  EXPECT_EQ(CountMissingPairs(Cover()), 0);
  EXPECT_GT(CountMissingPairs(std::span(Cover()).first(Cover().size() / 2)), 0);
}

// One chunk of a prompt after `begin` tokens, both random, whose last tile has r + 1 rows and whose
// keys end in every residue as well.
class SimtAttentionResidueTest : public testing::TestWithParam<int> {};

TEST_P(SimtAttentionResidueTest, EqualsReference) {
  constexpr DType kDTypes[] = {DType::kBfloat16, DType::kFloat16};
  for (int residue = GetParam(); residue < kCudaTileRows; residue += 8) {
    Random random(residue);
    const int begin = Uniform(random, 0, 130);
    const int end = begin + residue + 1 + kCudaTileRows * Uniform(random, 0, 1);
    SCOPED_TRACE(testing::Message() << "tokens " << begin << " to " << end);
    AttentionBatch batch = {.shape = {.kv_dtype = kDTypes[residue % 2],
                                      .output_dtype = kDTypes[residue % 2],
                                      .block_size = 16,
                                      .kv_heads = 1,
                                      .ratio = 1,
                                      .head_dim = 64},
                            .sequences = {},
                            .parts = {}};
    batch.sequences.push_back(
        RandomSequence(random, batch.shape, MakeStructure(random, Rule::kCausal, end)));
    batch.parts.push_back({.sequence = &batch.sequences.back(), .begin = begin, .end = end});
    ExpectRight(batch);
  }
}

INSTANTIATE_TEST_SUITE_P(OfEight, SimtAttentionResidueTest, testing::Range(0, 8));

// Few batches, small and quick, that meet every path of the kernels. faults_test.py runs these.
class SimtAttentionEdgeTest : public testing::Test {
 protected:
  AttentionBatch Batch(DType dtype, int ratio, int head_dim) {
    return {.shape = {.kv_dtype = dtype,
                      .output_dtype = dtype,
                      .block_size = 16,
                      .kv_heads = 2,
                      .ratio = ratio,
                      .head_dim = head_dim},
            .sequences = {},
            .parts = {}};
  }
  void Add(AttentionBatch* batch, const Structure& structure, int begin, bool generated = false) {
    batch->sequences.push_back(RandomSequence(random_, batch->shape, structure));
    batch->parts.push_back(
        {&batch->sequences.back(), begin, structure.size(), generated, /*shared_tokens=*/0});
  }
  // One token of two groups that take turns, in a context that all see.
  Structure Questions(int context, int length) {
    std::vector<int> groups(context, 0);
    for (int n = context; n < length; ++n) groups.push_back(n < length - 20 ? 1 + n % 2 : 3);
    return MakeStructure(RuleTable::Preset(RulePreset::kShared), groups);
  }

  Random random_{7};
};

TEST_F(SimtAttentionEdgeTest, Prompts) {
  for (const int head_dim : {64, 80, 128}) {
    AttentionBatch batch = Batch(head_dim == 80 ? DType::kFloat16 : DType::kBfloat16, 3, head_dim);
    Add(&batch, Questions(90, 170), head_dim == 64 ? 0 : 140);
    Add(&batch, MakeStructure(random_, Rule::kCausal, 139), 110);
    ExpectRight(batch);
  }
}

TEST_F(SimtAttentionEdgeTest, GeneratedTokens) {
  AttentionBatch batch = Batch(DType::kBfloat16, 7, 64);
  Add(&batch, Questions(90, 170), 169, true);
  Add(&batch, MakeStructure(random_, Rule::kCausal, 577), 576, true);
  Add(&batch, MakeStructure(random_, Rule::kCausal, 580), 579, true);
  SequenceTensors& branch = batch.sequences.back();
  const SequenceTensors& trunk = *std::prev(batch.sequences.end(), 2);
  std::copy(trunk.key.begin(), trunk.key.end(), branch.key.begin());
  std::copy(trunk.value.begin(), trunk.value.end(), branch.value.begin());
  batch.parts.back().shared_tokens = 577;
  ExpectRight(batch);
}

// A rule table that the server would refuse.
TEST_F(SimtAttentionEdgeTest, RowsThatSeeNothingAreZero) {
  RuleTable table = RuleTable::Preset(RulePreset::kIsolated);
  table.visible[2] = 0;
  const Structure structure = MakeStructure(table, {2, 2, 1, 1, 2, 1, 2, 2});
  for (const DType dtype : {DType::kBfloat16, DType::kFloat32}) {
    AttentionBatch batch = Batch(dtype, 2, 64);
    Add(&batch, structure, 0);
    Add(&batch, structure, 7, true);
    ExpectRight(batch);
  }
}

// STRUCTATTN_SIMT_CASES=1000 for a long run, STRUCTATTN_SIMT_SEED for its first seed.
TEST(SimtAttentionTest, RandomCasesEqualReference) {
  const char* count = std::getenv("STRUCTATTN_SIMT_CASES");
  const char* seed = std::getenv("STRUCTATTN_SIMT_SEED");
  const uint64_t first = seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
  const uint64_t cases = count == nullptr ? 4 : std::strtoull(count, nullptr, 10);
  for (uint64_t n = first; n < first + cases && !HasFailure(); ++n) {
    SCOPED_TRACE(Describe(RandomCase(n)));
    std::printf("%s\n", Describe(RandomCase(n)).c_str());
    ExpectRight(MakeBatch(RandomCase(n)));
  }
}

// ---- What must not change one bit.

class SimtAttentionInvarianceTest : public testing::TestWithParam<int> {
 protected:
  SimtAttentionInvarianceTest() : random_(GetParam()) {
    constexpr DType kDTypes[] = {DType::kBfloat16, DType::kFloat16, DType::kFloat32};
    constexpr int kRatios[] = {1, 3, 7};
    constexpr int kHeadDims[] = {64, 80, 128};
    const DType dtype = kDTypes[GetParam() % 3];
    shape_ = {.kv_dtype = dtype,
              .output_dtype = dtype,
              .block_size = 16,
              .kv_heads = Uniform(random_, 1, 2),
              .ratio = kRatios[Uniform(random_, 0, 2)],
              .head_dim = kHeadDims[Uniform(random_, 0, 2)]};
  }

  SequenceTensors Sequence(int longest) {
    const Rule rule = static_cast<Rule>(Uniform(random_, 0, 5));
    return RandomSequence(random_, shape_,
                          MakeStructure(random_, rule, Uniform(random_, 1, longest)));
  }

  std::vector<float> Run(const std::vector<EmulatedPart>& parts,
                         const EmulatedOptions& options = {}) {
    const EmulatedResult result = RunEmulated(shape_, parts, options);
    EXPECT_EQ(result.reports, "");
    return result.output;
  }

  Random random_;
  AttentionShape shape_;
};

TEST_P(SimtAttentionInvarianceTest, AloneEqualsInABatch) {
  std::vector<SequenceTensors> sequences;
  for (int s = 0; s < 3; ++s) sequences.push_back(Sequence(120));
  sequences.push_back(Sequence(600));
  std::vector<EmulatedPart> parts;
  std::vector<float> alone;
  for (const SequenceTensors& sequence : sequences) {
    const int length = sequence.structure.size();
    const bool generated = &sequence == &sequences.back();
    parts.push_back({&sequence, generated ? length - 1 : 0, length, generated});
    const std::vector<float> output = Run({parts.back()});
    alone.insert(alone.end(), output.begin(), output.end());
  }
  EXPECT_TRUE(SameBits(Run(parts), alone));
}

TEST_P(SimtAttentionInvarianceTest, AnyChunkingEqualsWhole) {
  const SequenceTensors sequence = Sequence(150);
  const int length = sequence.structure.size();
  const std::vector<float> whole = Run({{&sequence, 0, length}});
  for (const int most : {9, 100}) {
    std::vector<float> chunked;
    for (int begin = 0; begin < length;) {
      const int end = std::min(length, begin + Uniform(random_, 1, most));
      const std::vector<float> output = Run({{&sequence, begin, end}});
      chunked.insert(chunked.end(), output.begin(), output.end());
      begin = end;
    }
    EXPECT_TRUE(SameBits(chunked, whole)) << "chunks of at most " << most;
  }
}

TEST_P(SimtAttentionInvarianceTest, PlacementAndBlockSizeDoNotMatter) {
  const SequenceTensors sequence = Sequence(300);
  const int length = sequence.structure.size();
  const std::vector<EmulatedPart> parts = {{&sequence, 0, length},
                                           {&sequence, length - 1, length, true}};
  const std::vector<float> first = Run(parts);
  for (const int block_size : {1, 3, 16, 64}) {
    shape_.block_size = block_size;
    EXPECT_TRUE(SameBits(Run(parts, {.placement_seed = random_()}), first))
        << "blocks of " << block_size;
  }
}

// Branches that share the blocks of a long prompt, together and with copies of their own. There are
// more of them than one thread block takes.
TEST_P(SimtAttentionInvarianceTest, SharedPrefixesEqualUnshared) {
  const Structure trunk = MakeStructure(random_, static_cast<Rule>(Uniform(random_, 0, 5)), 530);
  const SequenceTensors common = RandomSequence(random_, shape_, trunk);
  std::list<SequenceTensors> branches;
  std::vector<EmulatedPart> shared;
  const int count = AttentionTiling(DeviceKind::kEmulated, shape_.ratio).split_kv_branches + 2;
  for (int b = 0; b < count; ++b) {
    Structure structure = trunk;
    for (int n = 0; n <= b % 5; ++n) structure.Append(trunk.groups().back());
    branches.push_back(RandomSequence(random_, shape_, structure));
    std::copy(common.key.begin(), common.key.end(), branches.back().key.begin());
    std::copy(common.value.begin(), common.value.end(), branches.back().value.begin());
    const int length = structure.size();
    shared.push_back({&branches.back(), length - 1, length, true, b == 0 ? 0 : 530});
  }
  std::vector<EmulatedPart> unshared = shared;
  for (EmulatedPart& part : unshared) part.shared_tokens = 0;
  const std::vector<float> expected = Run(unshared);
  EXPECT_TRUE(SameBits(Run(shared), expected));
  EXPECT_EQ(CountWrong(shape_, shared, expected), 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimtAttentionInvarianceTest, testing::Range(0, 9));

}  // namespace
}  // namespace structattn
