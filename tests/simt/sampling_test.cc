// PickTokens on the emulated device against double precision and the host's sampler. What a draw or
// a filter must give is put in the middle of a token's share, so that no rounding decides.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/sampling/pick_tokens.h"
#include "server/engine/sampling/sampler.h"
#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Picked {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

// Rows in a buffer that ends where the last row ends; `shift` floats before the first row make it
// unaligned. Outputs and workspace start as NaN.
Picked Pick(const std::vector<std::vector<float>>& rows, const std::vector<PickRule>& rules,
            uint64_t seed = simt::kSeeds[0], int shift = 0) {
  const int64_t vocabulary = static_cast<int64_t>(rows[0].size());
  std::vector<float> logits(shift, kNan);
  for (const auto& row : rows) logits.insert(logits.end(), row.begin(), row.end());
  std::vector<LogitsPart> parts(rows.size() * LogitsParts(vocabulary), {kNan, kNan, -1});
  Picked picked = {std::vector<int32_t>(rows.size(), -1), std::vector<float>(rows.size(), kNan)};
  {
    const simt::Memory memory[] = {simt::ReadOnly(logits), simt::ReadOnly(rules),
                                   simt::Writable(parts), simt::Writable(picked.ids),
                                   simt::Writable(picked.logprobs)};
    simt::SetSeed(seed);
    PickTokens({.device = DeviceKind::kEmulated}, {.logits = logits.data() + shift,
                                                   .rules = rules.empty() ? nullptr : rules.data(),
                                                   .parts = parts.data(),
                                                   .ids = picked.ids.data(),
                                                   .logprobs = picked.logprobs.data(),
                                                   .rows = static_cast<int64_t>(rows.size()),
                                                   .vocabulary = vocabulary});
  }
  EXPECT_EQ(simt::Describe(simt::TakeReports()), "");
  return picked;
}

std::vector<float> RandomLogits(int64_t vocabulary, float deviation, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

double LogSumExp(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// logit - largest and the logarithm round once each, and the sum of n terms between 0 and 1 in at
// most 64 chains and trees of 32 roundings; expf is within 2 units. All relative to 1 or the
// result.
double Bound(double logprob) { return 40.0 * 0x1p-24 * (1.0 + std::abs(logprob)); }

// The tokens that a rule keeps, in the order of the draw, by double precision.
struct Kept {
  std::vector<int32_t> ids;
  std::vector<double> weights;
  double total() const { return std::accumulate(weights.begin(), weights.end(), 0.0); }

  // Where `share` of the way through token i's part of the distribution lies.
  double Within(size_t i, double share) const {
    const double before = std::accumulate(weights.begin(), weights.begin() + i, 0.0);
    return (before + share * weights[i]) / total();
  }
  // Weights in the order of `ids`, which are all ids below `vocabulary`.
  static Kept All(const std::vector<float>& logits, float temperature) {
    Kept kept;
    const double largest = *std::max_element(logits.begin(), logits.end());
    for (size_t i = 0; i < logits.size(); ++i) {
      kept.ids.push_back(static_cast<int32_t>(i));
      kept.weights.push_back(std::exp((logits[i] - largest) / temperature));
    }
    return kept;
  }
  void Sort(const std::vector<float>& logits) {
    std::stable_sort(ids.begin(), ids.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    std::sort(weights.begin(), weights.end(), std::greater<>());
  }
  void Cut(size_t count) {
    ids.resize(std::min(ids.size(), count));
    weights.resize(ids.size());
  }
};

struct Shape {
  int64_t vocabulary;
  float deviation;
  int shift = 0;
};

// A short row, one of several parts, one whose distribution is so flat that no list holds it, and
// rows that allow no vectors.
class PickTokensTest : public testing::TestWithParam<Shape> {
 protected:
  const std::vector<float> logits_ = RandomLogits(GetParam().vocabulary, GetParam().deviation, 7);

  int32_t PickOne(const PickRule& rule) const {
    return Pick({logits_}, {rule}, simt::kSeeds[0], GetParam().shift).ids[0];
  }
};

TEST_P(PickTokensTest, PicksMostLikelyTokenOfEveryRow) {
  std::vector<std::vector<float>> rows;
  for (uint32_t seed = 0; seed < 3; ++seed) {
    rows.push_back(RandomLogits(GetParam().vocabulary, GetParam().deviation, seed));
  }
  const Picked first = Pick(rows, {}, simt::kSeeds[0], GetParam().shift);
  for (size_t row = 0; row < rows.size(); ++row) {
    const auto best = std::max_element(rows[row].begin(), rows[row].end());
    EXPECT_EQ(first.ids[row], best - rows[row].begin());
    const double logprob = *best - LogSumExp(rows[row]);
    EXPECT_NEAR(first.logprobs[row], logprob, Bound(logprob));
    const Picked alone = Pick({rows[row]}, {}, simt::kSeeds[1], GetParam().shift);
    EXPECT_EQ(alone.logprobs[0], first.logprobs[row]) << "alone and in a batch";
  }
  for (uint64_t seed : simt::kSeeds) {
    EXPECT_EQ(Pick(rows, {}, seed, GetParam().shift).logprobs, first.logprobs) << "seed " << seed;
  }
}

TEST_P(PickTokensTest, GivesLogprobOfGivenToken) {
  const auto last = static_cast<int32_t>(logits_.size()) - 1;
  for (int32_t given : {0, last / 2, last}) {
    const Picked picked =
        Pick({logits_}, {{.given = given, .temperature = 1.0f}}, simt::kSeeds[0], GetParam().shift);
    EXPECT_EQ(picked.ids[0], given);
    const double logprob = logits_[given] - LogSumExp(logits_);
    EXPECT_NEAR(picked.logprobs[0], logprob, Bound(logprob));
  }
}

TEST_P(PickTokensTest, DrawsByIdWithoutFilter) {
  const Kept all = Kept::All(logits_, 0.8f);
  const size_t likely =
      std::max_element(all.weights.begin(), all.weights.end()) - all.weights.begin();
  for (double share : {0.1, 0.5, 0.9}) {
    EXPECT_EQ(PickOne({.temperature = 0.8f, .uniform = all.Within(likely, share)}),
              static_cast<int32_t>(likely));
  }
}

TEST_P(PickTokensTest, DrawsAmongTopK) {
  Kept kept = Kept::All(logits_, 1.3f);
  kept.Sort(logits_);
  kept.Cut(5);
  for (size_t i : {size_t{0}, kept.ids.size() - 1}) {
    EXPECT_EQ(PickOne({.temperature = 1.3f, .top_k = 5, .uniform = kept.Within(i, 0.5)}),
              kept.ids[i]);
  }
}

TEST_P(PickTokensTest, DrawsAmongTopP) {
  Kept kept = Kept::All(logits_, 1.0f);
  kept.Sort(logits_);
  const size_t last = std::min<size_t>(kept.ids.size() - 1, 9);
  const auto top_p = static_cast<float>(kept.Within(last, 0.5));
  kept.Cut(last + 1);
  for (size_t i : {size_t{0}, last}) {
    EXPECT_EQ(PickOne({.temperature = 1.0f, .top_p = top_p, .uniform = kept.Within(i, 0.5)}),
              kept.ids[i]);
  }
}

TEST_P(PickTokensTest, DrawsAmongTokensAboveMinP) {
  Kept all = Kept::All(logits_, 1.0f);
  Kept sorted = all;
  sorted.Sort(logits_);
  const size_t last = std::min<size_t>(sorted.ids.size() - 1, 6);
  const double next = last + 1 < sorted.ids.size() ? sorted.weights[last + 1] : 0.0;
  const double least = (sorted.weights[last] + next) / 2.0;
  Kept kept;
  for (size_t i = 0; i < all.ids.size(); ++i) {
    if (all.weights[i] < least) continue;
    kept.ids.push_back(all.ids[i]);
    kept.weights.push_back(all.weights[i]);
  }
  for (size_t i : {size_t{0}, kept.ids.size() - 1}) {
    EXPECT_EQ(PickOne({.temperature = 1.0f,
                       .min_p = static_cast<float>(least),
                       .uniform = kept.Within(i, 0.5)}),
              kept.ids[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PickTokensTest,
                         testing::Values(Shape{1, 1.0f}, Shape{37, 2.0f}, Shape{4096, 3.0f, 1},
                                         Shape{9001, 3.0f}, Shape{9000, 0.3f}),
                         [](const auto& test) {
                           return "Vocabulary" + std::to_string(test.param.vocabulary);
                         });

TEST(PickTokensEdgeTest, TakesSmallestIdOfEquals) {
  std::vector<float> logits(9000, -1.0f);
  logits[5000] = logits[4100] = 3.0f;
  logits[8999] = 3.0f;
  EXPECT_EQ(Pick({logits}, {}).ids[0], 4100);
  logits.assign(300, -0.0f);
  logits[200] = 0.0f;
  EXPECT_EQ(Pick({logits}, {}).ids[0], 0) << "the zeros are equal";
  // Equal weights: top-k and top-p keep the smallest ids.
  EXPECT_EQ(Pick({logits}, {{.temperature = 1.0f, .top_k = 4, .uniform = 0.99}}).ids[0], 3);
  EXPECT_EQ(Pick({logits}, {{.temperature = 1.0f, .top_p = 0.5f, .uniform = 0.999}}).ids[0], 149);
}

TEST(PickTokensEdgeTest, TellsWhatIsNotFinite) {
  for (float bad : {kNan, -kNan, kInfinity}) {
    for (size_t at : {size_t{0}, size_t{4999}}) {
      std::vector<float> logits(5000, 0.5f);
      logits[at] = bad;
      EXPECT_TRUE(std::isnan(Pick({logits}, {}).logprobs[0])) << bad << " at " << at;
      EXPECT_TRUE(std::isnan(Pick({logits}, {{.temperature = 1.0f}}).logprobs[0])) << bad;
    }
  }
  const std::vector<float> nothing(5000, -kInfinity);
  EXPECT_TRUE(std::isnan(Pick({nothing}, {}).logprobs[0]));
}

TEST(PickTokensEdgeTest, NeverDrawsWhatIsImpossible) {
  std::vector<float> logits(5000, -kInfinity);
  logits[4500] = 1.0f;
  for (double uniform : {0.0, 0.5, 1.0 - 0x1p-53}) {
    const Picked picked = Pick({logits}, {{.temperature = 2.0f, .uniform = uniform}});
    EXPECT_EQ(picked.ids[0], 4500);
    EXPECT_EQ(picked.logprobs[0], 0.0f);
  }
}

// All filters together, as requests combine them.
TEST(PickTokensEdgeTest, AgreesWithHostSampler) {
  std::mt19937 random(11);
  engine::Sampler sampler;
  const engine::TokenHistory history(engine::SamplingParams(), {});
  for (uint32_t i = 0; i < 12; ++i) {
    const std::vector<float> logits = RandomLogits(3000, 2.5f, 100 + i);
    engine::SamplingParams params;
    params.temperature = 0.5f + 0.1f * static_cast<float>(random() % 10);
    if (i % 3 != 0) params.top_k = static_cast<int32_t>(random() % 100);
    if (i % 2 != 0) params.top_p = 0.5f + 0.05f * static_cast<float>(random() % 10);
    if (i % 4 == 0) params.min_p = 0.02f;
    const engine::DrawId draw = {.seed = i, .continuation = 0, .token = 5};
    const auto expected =
        sampler.Sample({.logits = logits, .params = &params, .history = &history, .draw = draw});
    ASSERT_TRUE(expected.ok());
    const Picked picked = Pick({logits}, {{.temperature = params.temperature,
                                           .top_k = params.top_k,
                                           .top_p = params.top_p,
                                           .min_p = params.min_p,
                                           .uniform = engine::UniformDraw(draw)}});
    EXPECT_EQ(picked.ids[0], expected->token_id) << "case " << i;
    EXPECT_NEAR(picked.logprobs[0], expected->logprob, 1e-5);
  }
}

}  // namespace
}  // namespace structattn
