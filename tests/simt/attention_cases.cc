// Pairwise cover of the axes, batches of them, and the tolerance.
#include "tests/simt/attention_cases.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

constexpr Rule kRules[] = {Rule::kAnchored, Rule::kShared, Rule::kIsolated,
                           Rule::kCausal,   Rule::kRandom, Rule::kInterleaved};
constexpr const char* kRuleNames[] = {"anchored", "shared", "isolated",
                                      "causal",   "random", "interleaved"};
constexpr int kLengths[] = {1, 17, 37, 127, 577};
constexpr int kBlockSizes[] = {1, 16, 64};
constexpr int kRatios[] = {1, 2, 4, 7, 8};
constexpr int kHeadDims[] = {64, 80, 96, 128};
constexpr DType kDTypes[] = {DType::kBfloat16, DType::kFloat16, DType::kFloat32};
constexpr Roles kRoles[] = {Roles::kPrompt, Roles::kChunks, Roles::kGenerated, Roles::kMixed,
                            Roles::kBranches};
constexpr const char* kRoleNames[] = {"prompt", "chunks", "generated", "mixed", "branches"};

// A case as one index per axis.
constexpr int kAxes = 7;
constexpr int kSizes[kAxes] = {6, 5, 3, 5, 4, 3, 5};
using Indices = std::array<int, kAxes>;
using Pair = std::array<int, 4>;  // An axis, its value, another axis, its value.

AttentionCase MakeCase(const Indices& index, uint64_t seed) {
  return {.rule = kRules[index[0]],
          .length = kLengths[index[1]],
          .block_size = kBlockSizes[index[2]],
          .ratio = kRatios[index[3]],
          .head_dim = kHeadDims[index[4]],
          .dtype = kDTypes[index[5]],
          .roles = kRoles[index[6]],
          .seed = seed};
}

template <typename Values, typename Value>
int IndexOf(const Values& values, Value value) {
  return static_cast<int>(std::find(std::begin(values), std::end(values), value) -
                          std::begin(values));
}

Indices IndicesOf(const AttentionCase& c) {
  return {
      IndexOf(kRules, c.rule),   IndexOf(kLengths, c.length),    IndexOf(kBlockSizes, c.block_size),
      IndexOf(kRatios, c.ratio), IndexOf(kHeadDims, c.head_dim), IndexOf(kDTypes, c.dtype),
      IndexOf(kRoles, c.roles)};
}

std::vector<Pair> PairsOf(const Indices& index) {
  std::vector<Pair> pairs;
  for (int a = 0; a < kAxes; ++a) {
    for (int b = a + 1; b < kAxes; ++b) pairs.push_back({a, index[a], b, index[b]});
  }
  return pairs;
}

std::set<Pair> AllPairs() {
  std::set<Pair> pairs;
  for (int a = 0; a < kAxes; ++a) {
    for (int b = a + 1; b < kAxes; ++b) {
      for (int i = 0; i < kSizes[a]; ++i) {
        for (int j = 0; j < kSizes[b]; ++j) pairs.insert({a, i, b, j});
      }
    }
  }
  return pairs;
}

Indices RandomIndices(Random& random) {
  Indices index;
  for (int axis = 0; axis < kAxes; ++axis) index[axis] = Uniform(random, 0, kSizes[axis] - 1);
  return index;
}

// A case with a pair that is still missing. Its other axes are random.
Indices RandomIndicesWith(Random& random, const Pair& pair) {
  Indices index = RandomIndices(random);
  index[pair[0]] = pair[1];
  index[pair[2]] = pair[3];
  return index;
}

}  // namespace

std::string Describe(const AttentionCase& c) {
  std::ostringstream text;
  text << kRuleNames[static_cast<int>(c.rule)] << ", " << c.length << " tokens, "
       << kRoleNames[static_cast<int>(c.roles)] << ", blocks of " << c.block_size << ", " << c.ratio
       << " query heads a KV head, head_dim " << c.head_dim << ", " << Name(c.dtype) << ", seed "
       << c.seed;
  return text.str();
}

std::vector<AttentionCase> PairwiseCases(uint64_t seed) {
  constexpr int kCandidates = 60;  // The best of them is taken.
  Random random(seed);
  std::set<Pair> missing = AllPairs();
  std::vector<AttentionCase> cases;
  while (!missing.empty()) {
    Indices best = {};
    int64_t best_new = 0;
    for (int n = 0; n < kCandidates; ++n) {
      const Indices index = RandomIndicesWith(random, *missing.begin());
      const std::vector<Pair> pairs = PairsOf(index);
      const int64_t news = std::count_if(pairs.begin(), pairs.end(),
                                         [&](const Pair& pair) { return missing.count(pair); });
      if (news > best_new) std::tie(best, best_new) = std::pair(index, news);
    }
    for (const Pair& pair : PairsOf(best)) missing.erase(pair);
    cases.push_back(MakeCase(best, seed + cases.size()));
  }
  return cases;
}

int CountMissingPairs(std::span<const AttentionCase> cases) {
  std::set<Pair> missing = AllPairs();
  for (const AttentionCase& c : cases) {
    for (const Pair& pair : PairsOf(IndicesOf(c))) missing.erase(pair);
  }
  return static_cast<int>(missing.size());
}

AttentionCase RandomCase(uint64_t seed) {
  Random random(seed);
  AttentionCase c = MakeCase(RandomIndices(random), seed);
  c.length = Uniform(random, 1, 700);
  return c;
}

Structure MakeStructure(Random& random, Rule rule, int length) {
  const int groups = Uniform(random, 1, 12);
  switch (rule) {
    case Rule::kRandom:
      return MakeStructure(RandomTable(random), RandomGroups(random, length, groups));
    case Rule::kInterleaved: {  // Token by token.
      std::vector<int> order(length);
      for (int& group : order) group = Uniform(random, 0, groups);
      return MakeStructure(RandomRule(random), order);
    }
    default:
      return MakeStructure(RuleTable::Preset(kPresets[static_cast<int>(rule)]),
                           RandomGroups(random, length, groups));
  }
}

namespace {

// Every third has a sliding window.
void AddPrompt(Random& random, const AttentionCase& c, int length, AttentionBatch* batch) {
  batch->sequences.push_back(
      RandomSequence(random, batch->shape, MakeStructure(random, c.rule, length)));
  if (Uniform(random, 0, 2) == 0) batch->sequences.back().window = Uniform(random, 1, length);
  batch->parts.push_back({.sequence = &batch->sequences.back(), .begin = 0, .end = length});
}

void AddChunk(Random& random, const AttentionCase& c, AttentionBatch* batch) {
  AddPrompt(random, c, c.length, batch);
  EmulatedPart& part = batch->parts.back();
  part.begin = Uniform(random, 0, c.length - 1);
  part.end = Uniform(random, part.begin + 1, c.length);
}

void AddGenerated(Random& random, const AttentionCase& c, AttentionBatch* batch) {
  AddPrompt(random, c, c.length, batch);
  EmulatedPart& part = batch->parts.back();
  part.begin = c.length - 1;
  part.generated = true;
}

// Branches of one prompt: the first `c.length` tokens and their keys in common, then 1 to 40 tokens
// each in the last token's group.
void AddBranches(Random& random, const AttentionCase& c, AttentionBatch* batch) {
  const Structure trunk = MakeStructure(random, c.rule, c.length);
  const SequenceTensors common = RandomSequence(random, batch->shape, trunk);
  const int branches = Uniform(random, 2, 12);  // At a ratio of 8, a thread block takes only 8.
  for (int b = 0; b < branches; ++b) {
    Structure structure = trunk;
    const int own = Uniform(random, 1, 40);
    for (int n = 0; n < own; ++n) structure.Append(trunk.groups().back());
    SequenceTensors branch = RandomSequence(random, batch->shape, structure);
    std::copy(common.key.begin(), common.key.end(), branch.key.begin());
    std::copy(common.value.begin(), common.value.end(), branch.value.begin());
    batch->sequences.push_back(std::move(branch));
    const int length = c.length + own;
    batch->parts.push_back({.sequence = &batch->sequences.back(),
                            .begin = length - 1,
                            .end = length,
                            .generated = true,
                            .shared_tokens = b == 0 ? 0 : c.length});
  }
}

}  // namespace

AttentionBatch MakeBatch(const AttentionCase& c) {
  Random random(c.seed);
  AttentionBatch batch = {.shape = {.kv_dtype = c.dtype,
                                    .output_dtype = c.dtype,
                                    .block_size = c.block_size,
                                    .kv_heads = Uniform(random, 1, 2),
                                    .ratio = c.ratio,
                                    .head_dim = c.head_dim},
                          .sequences = {},
                          .parts = {}};
  const bool mixed = c.roles == Roles::kMixed;
  if (c.roles == Roles::kPrompt) AddPrompt(random, c, c.length, &batch);
  for (int n = 0; n < 3 && (mixed || c.roles == Roles::kChunks); ++n) AddChunk(random, c, &batch);
  if (mixed) AddPrompt(random, c, Uniform(random, 1, 60), &batch);
  for (int n = 0; n < 3 && (mixed || c.roles == Roles::kGenerated); ++n) {
    AddGenerated(random, c, &batch);
  }
  if (mixed || c.roles == Roles::kBranches) AddBranches(random, c, &batch);
  if (c.dtype == DType::kFloat32) {  // Its kernel takes a warp's five shuffles for each key.
    for (EmulatedPart& part : batch.parts) part.begin = std::max(part.begin, part.end - 12);
  }
  return batch;
}

namespace {

// The unit roundoff of a type: bfloat16 has 8 bits of precision, float16 has 11, float32 24.
double Roundoff(DType dtype) {
  if (dtype == DType::kFloat32) return 0x1p-24;
  return dtype == DType::kBfloat16 ? 0x1p-8 : 0x1p-11;
}

// How far off a kernel may be in one element, before its result is rounded. Query, keys and values
// are exact in the storage type T (the reference gets the rounded query), sums are float with unit
// roundoff u, n is the number of keys, D head_dim, M the largest sum of |scale q k| of a key.
//
// - A score sums D exact products: D u M, twice that on tensor cores, which truncate. Scale x
//   log2(e) brings two roundings, one rounding of (score - largest) that is at most 2 M: (2 D + 4)
//   u M, and as the exponent of 2 times ln 2 x log2(e) = 1 that is the relative error of the
//   weight. 2^x itself is within 2 units in the last place: 4 u.
// - Each time that the largest score grows, what was summed so far is scaled by a power of two,
// with
//   2^x's 4 u and one rounding. The differences of the largest scores add up to at most 2 M, which
//   makes 5 u each time, and 2 u M in all. It grows at most once a key in the float32 kernel, once
//   a key tile of 64 otherwise, and once a split when splits are merged.
// - The denominator carries this, too, so it counts twice. Both sums have n terms: n u each, twice
//   that on tensor cores; reciprocal and product 2 u, the sums of lanes 2 u.
// - The weights are rounded to T before they meet the values: Roundoff(T) of the weighted sum; in
//   float16, which is subnormal below 2^-14, also 2^-25 a key against a denominator of 1 or more.
// - Below 2^-126 a weight is zero.
double KernelError(const AttentionShape& shape, const ReferenceRow& row, int dim) {
  constexpr double kU = 0x1p-24;
  const bool wide = shape.kv_dtype == DType::kFloat32;
  const double n = row.keys;
  const double steps = wide ? n : n / 64 + n / kSplitKeys + 2;
  const double weight = kU * ((2 * shape.head_dim + 4 + 2) * row.magnitude + 4 + 5 * steps + 2 * n);
  const double relative = 2 * weight + 4 * kU + (wide ? 0.0 : Roundoff(shape.kv_dtype));
  const double absolute = shape.kv_dtype == DType::kFloat16 ? 0x1p-25 : 0x1p-125;
  return 1.01 * (relative * row.weighted[dim] + absolute * row.absolute[dim]);
}

// The rounding of a result near `value`, where float16 has a smallest unit.
double OutputError(DType dtype, double value) {
  return 1.01 * Roundoff(dtype) * value + (dtype == DType::kFloat16 ? 0x1p-25 : 0x1p-149);
}

std::vector<int> ChooseTokens(const AttentionShape& shape, const EmulatedPart& part) {
  const int count = part.end - part.begin;
  const int64_t work = int64_t{count} * part.end * shape.heads() * shape.head_dim;
  constexpr int64_t kAffordable = 20'000'000;
  std::set<int> tokens = {part.begin, part.end - 1};
  Random random(part.begin * 1000 + part.end);
  const int64_t chosen = work <= kAffordable ? count : count * kAffordable / work;
  if (chosen == count) {
    for (int token = part.begin; token < part.end; ++token) tokens.insert(token);
  }
  while (static_cast<int64_t>(tokens.size()) < chosen) {
    tokens.insert(Uniform(random, part.begin, part.end - 1));
  }
  return {tokens.begin(), tokens.end()};
}

int CountWrongRow(const AttentionShape& shape, const ReferenceRow& row,
                  std::span<const float> output) {
  int wrong = 0;
  for (int dim = 0; dim < shape.head_dim; ++dim) {
    const double error = KernelError(shape, row, dim);
    const double allowed = error + OutputError(shape.kv_dtype, std::abs(row.output[dim]) + error);
    wrong += !(std::abs(output[dim] - row.output[dim]) <= allowed);
  }
  return wrong;
}

}  // namespace

int CountWrong(const AttentionShape& shape, std::span<const EmulatedPart> parts,
               std::span<const float> output) {
  const HeadShape heads = {.heads = shape.heads(),
                           .kv_heads = shape.kv_heads,
                           .head_dim = shape.head_dim,
                           .scale = shape.Heads().scale};
  int wrong = 0;
  int64_t first_row = 0;
  for (const EmulatedPart& part : parts) {
    SequenceTensors rounded = *part.sequence;
    rounded.query = TypedBuffer(shape.kv_dtype, rounded.query).ToFloats();
    for (const int token : ChooseTokens(shape, part)) {
      for (int head = 0; head < shape.heads(); ++head) {
        const int64_t row = (first_row + token - part.begin) * shape.heads() + head;
        wrong += CountWrongRow(shape, ReferenceAttention(rounded, heads, token, head),
                               output.subspan(row * shape.head_dim, shape.head_dim));
      }
    }
    first_row += part.end - part.begin;
  }
  for (const float value : output) wrong += std::isnan(value);
  return wrong;
}

}  // namespace structattn
