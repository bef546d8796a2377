// Fused distributions against a naive model in double precision, and what must not change a bit.
#include "server/engine/sampling/fused_distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace structattn::engine {
namespace {

using Rows = std::vector<std::vector<float>>;

// Log-probabilities of the definition: the sum, or the largest, of w_i p_i, renormalised.
std::vector<double> NaiveFusion(FusionMethod method, const Rows& rows,
                                const std::vector<double>& weights) {
  const size_t vocabulary = rows[0].size();
  std::vector<double> fused(vocabulary, 0.0);
  for (size_t i = 0; i < rows.size(); ++i) {
    double total = 0.0;
    for (const float logit : rows[i]) total += std::exp(static_cast<double>(logit));
    for (size_t id = 0; id < vocabulary; ++id) {
      const double part = weights[i] * std::exp(static_cast<double>(rows[i][id])) / total;
      fused[id] = method == FusionMethod::kAverage ? fused[id] + part : std::max(fused[id], part);
    }
  }
  const double sum = std::accumulate(fused.begin(), fused.end(), 0.0);
  for (double& value : fused) value = std::log(value / sum);
  return fused;
}

Rows RandomRows(std::mt19937* random, size_t members, size_t vocabulary, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  Rows rows(members, std::vector<float>(vocabulary));
  for (auto& row : rows) std::ranges::generate(row, [&] { return normal(*random); });
  return rows;
}

std::vector<double> RandomWeights(std::mt19937* random, size_t members) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<double> weights(members);
  for (double& weight : weights) weight = (*random)() % 4 == 0 ? 0.0 : uniform(*random);
  weights[(*random)() % members] = 1.0;
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<float> Fuse(FusionMethod method, const Rows& rows, const std::vector<double>& weights,
                        std::vector<int32_t> order = {}) {
  if (order.empty()) {
    order.resize(rows.size());
    std::iota(order.begin(), order.end(), 0);
  }
  FusedDistribution fused(method, static_cast<int32_t>(rows.size()));
  for (const int32_t member : order) {
    EXPECT_FALSE(fused.complete());
    EXPECT_TRUE(fused.Take(member, rows[member]).ok());
  }
  EXPECT_TRUE(fused.complete());
  const std::span<const float> scores = fused.Fuse(weights);
  return {scores.begin(), scores.end()};
}

// A score is rounded to float about three times at its own magnitude (below 128 here: 2^-17 each),
// and e^x and the sums have relative errors of 1e-6.
constexpr double kTolerance = 3 * 0x1p-17 + 4e-6;

TEST(FusedDistribution, IsThatOfTheDefinition) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const size_t members = 1 + random() % 63;
    const Rows rows =
        RandomRows(&random, members, 1 + random() % 300, 0.1f * static_cast<float>(random() % 100));
    const std::vector<double> weights = RandomWeights(&random, members);
    for (const FusionMethod method : {FusionMethod::kAverage, FusionMethod::kMaximum}) {
      const std::vector<float> scores = Fuse(method, rows, weights);
      const std::vector<double> expected = NaiveFusion(method, rows, weights);
      const auto row = ScoredRow::Make(scores);
      for (size_t id = 0; id < scores.size(); ++id) {
        ASSERT_NEAR(row->Logprob(static_cast<int32_t>(id)), expected[id], kTolerance);
      }
    }
  }
}

TEST(FusedDistribution, KnowsNoOrderOfArrival) {
  std::mt19937 random(1);
  const Rows rows = RandomRows(&random, 7, 1000, 5.0f);
  const std::vector<double> weights = RandomWeights(&random, 7);
  std::vector<int32_t> order(7);
  std::iota(order.begin(), order.end(), 0);
  for (const FusionMethod method : {FusionMethod::kAverage, FusionMethod::kMaximum}) {
    const std::vector<float> scores = Fuse(method, rows, weights);
    for (int round = 0; round < 10; ++round) {
      std::ranges::shuffle(order, random);
      EXPECT_EQ(Fuse(method, rows, weights, order), scores);
    }
  }
}

TEST(FusedDistribution, OfOneThatWeighsIsItsLogits) {
  std::mt19937 random(2);
  const Rows rows = RandomRows(&random, 3, 50, 5.0f);
  for (const FusionMethod method : {FusionMethod::kAverage, FusionMethod::kMaximum}) {
    EXPECT_EQ(Fuse(method, rows, {0.0, 1.0, 0.0}), rows[1]);
    EXPECT_EQ(Fuse(method, {rows[2]}, {1.0}), rows[2]);
  }
}

TEST(FusedDistribution, SurvivesProbabilitiesOfZero) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const Rows rows = {{0.0f, kNever, kNever, -200.0f}, {kNever, 0.0f, kNever, -200.0f}};
  for (const FusionMethod method : {FusionMethod::kAverage, FusionMethod::kMaximum}) {
    const auto row = ScoredRow::Make(Fuse(method, rows, {0.5, 0.5}));
    const std::vector<float> scores = Fuse(method, rows, {0.5, 0.5});
    const auto scored = ScoredRow::Make(scores);
    EXPECT_NEAR(scored->Logprob(0), std::log(0.5), kTolerance);
    EXPECT_NEAR(scored->Logprob(1), std::log(0.5), kTolerance);
    EXPECT_LT(scored->Logprob(2), -1e20f);
    EXPECT_NEAR(scored->Logprob(3), -200.0 + (method == FusionMethod::kMaximum ? -std::log(2) : 0),
                1e-3);
  }
}

TEST(FusedDistribution, GivesEachMembersOwnLogprobAndBeginsAnew) {
  std::mt19937 random(3);
  FusedDistribution fused(FusionMethod::kAverage, 2);
  for (int round = 0; round < 3; ++round) {
    const Rows rows = RandomRows(&random, 2, 40, 3.0f);
    ASSERT_TRUE(fused.Take(1, rows[1]).ok());
    EXPECT_TRUE(fused.Has(1));
    EXPECT_FALSE(fused.Has(0));
    ASSERT_TRUE(fused.Take(0, rows[0]).ok());
    EXPECT_EQ(fused.MemberLogprobs(7), (std::vector<float>{ScoredRow::Make(rows[0])->Logprob(7),
                                                           ScoredRow::Make(rows[1])->Logprob(7)}));
    fused.Clear();
    EXPECT_FALSE(fused.Has(0) || fused.Has(1) || fused.complete());
  }
  EXPECT_EQ(fused.Take(0, std::vector<float>{0.0f, std::nanf("")}).code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace structattn::engine
