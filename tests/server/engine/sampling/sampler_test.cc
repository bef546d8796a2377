// The sampler: log-probabilities against long double, filters against a naive reference that sorts
// everything, distributions against chi-square bounds, and independence of what came before.
#include "server/engine/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

namespace structattn::engine {
namespace {

std::vector<float> RandomLogits(std::mt19937* random, int size, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(*random);
  return logits;
}

struct Case {
  std::vector<float> logits;
  SamplingParams params = {};
  std::vector<int32_t> prompt = {};
  std::vector<int32_t> output = {};
  int32_t top_logprobs = 0;
};

absl::StatusOr<SampledToken> Sample(const Case& sample, uint32_t token, Sampler* sampler) {
  TokenHistory history(sample.params, sample.prompt);
  for (int32_t id : sample.output) history.AddGenerated(id);
  return sampler->Sample({.logits = sample.logits,
                          .params = &sample.params,
                          .history = &history,
                          .draw = {sample.params.seed, 0, token},
                          .top_logprobs = sample.top_logprobs});
}

// Probabilities of every id after all filters, by the words of the specification.
std::vector<double> NaiveDistribution(const Case& sample) {
  const SamplingParams& params = sample.params;
  std::vector<double> scores(sample.logits.begin(), sample.logits.end());
  for (const auto& [id, bias] : params.logit_bias) scores[id] += bias;
  std::map<int32_t, int> seen;
  for (int32_t id : sample.prompt) seen[id] += 0;
  for (int32_t id : sample.output) seen[id] += 1;
  for (const auto& [id, count] : seen) {
    scores[id] = scores[id] > 0 ? scores[id] / params.repetition_penalty
                                : scores[id] * params.repetition_penalty;
    if (count > 0) scores[id] -= params.presence_penalty + count * params.frequency_penalty;
  }
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  if (params.temperature == 0.0f) order.resize(1);
  const double temperature = params.temperature == 0.0f ? 1.0 : params.temperature;
  if (params.top_k > 0 && params.top_k < static_cast<int32_t>(order.size())) {
    order.resize(params.top_k);
  }
  const auto weight = [&](int32_t id) {
    return std::exp((scores[id] - scores[order[0]]) / temperature);
  };
  double total = 0.0;
  for (int32_t id : order) total += weight(id);
  size_t kept = 0;
  for (double sum = 0.0; kept < order.size() && (kept == 0 || sum < params.top_p * total); ++kept) {
    sum += weight(order[kept]);
  }
  if (params.top_p < 1.0f) order.resize(kept);
  std::erase_if(order, [&](int32_t id) { return weight(id) < params.min_p; });
  total = 0.0;
  for (int32_t id : order) total += weight(id);
  std::vector<double> distribution(scores.size(), 0.0);
  for (int32_t id : order) distribution[id] = weight(id) / total;
  return distribution;
}

TEST(SamplerTest, LogprobsAreTheRawSoftmax) {
  Sampler sampler;
  for (const int size : {1, 2, 17, 1000, 49152}) {
    for (const float spread : {0.01f, 3.0f, 60.0f}) {
      SCOPED_TRACE(testing::Message() << size << " logits, spread " << spread);
      std::mt19937 random(size);
      Case sample{.logits = RandomLogits(&random, size, spread)};
      sample.top_logprobs = 20;
      // What changes the choice must not change what is reported.
      sample.params.repetition_penalty = 2.0f;
      sample.params.logit_bias = {{0, 5.0f}};
      sample.prompt = {0};
      const absl::StatusOr<SampledToken> token = Sample(sample, 0, &sampler);
      ASSERT_TRUE(token.ok());

      long double sum = 0.0L;
      for (float logit : sample.logits) sum += std::exp(static_cast<long double>(logit));
      const auto expected = [&](int32_t id) {
        return static_cast<double>(sample.logits[id] - std::log(sum));
      };
      // Each e^x errs by 2e-7 relative, the result's rounding by 2^-24 of its size.
      const auto tolerance = [&](int32_t id) { return 3e-7 + 1.2e-7 * std::abs(expected(id)); };
      EXPECT_NEAR(token->logprob, expected(token->token_id), tolerance(token->token_id));
      ASSERT_EQ(token->top_logprobs.size(), static_cast<size_t>(std::min(size, 20)));
      std::vector<int32_t> order(size);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return sample.logits[a] > sample.logits[b]; });
      for (size_t i = 0; i < token->top_logprobs.size(); ++i) {
        EXPECT_EQ(token->top_logprobs[i].token_id, order[i]);
        EXPECT_NEAR(token->top_logprobs[i].logprob, expected(order[i]), tolerance(order[i]));
      }
    }
  }
}

TEST(SamplerTest, TiesGoToTheSmallerId) {
  Sampler sampler;
  Case sample{.logits = {1.0f, 3.0f, 2.0f, 3.0f, 2.0f, 3.0f}};
  sample.top_logprobs = 4;
  const absl::StatusOr<SampledToken> token = Sample(sample, 0, &sampler);
  EXPECT_EQ(token->token_id, 1);
  std::vector<int32_t> best;
  for (const TokenLogprob& entry : token->top_logprobs) best.push_back(entry.token_id);
  EXPECT_EQ(best, (std::vector<int32_t>{1, 3, 5, 2}));
}

TEST(SamplerTest, BiasComesBeforePenalties) {
  Sampler sampler;
  // Biased to 4, halved to 2 by the penalty: below 2.5. The other order would give 1 / 2 + 3 = 3.5.
  Case sample{.logits = {1.0f, 2.5f}};
  sample.params.logit_bias = {{0, 3.0f}};
  sample.params.repetition_penalty = 2.0f;
  sample.prompt = {0};
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 1);
}

TEST(SamplerTest, RepetitionCountsThePromptPresenceAndFrequencyOnlyTheOutput) {
  Sampler sampler;
  Case sample{.logits = {2.0f, 1.5f, -1.0f}};
  sample.prompt = {0};
  sample.params.presence_penalty = 1.0f;
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 0);
  sample.output = {0};
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 1);
  sample.params.presence_penalty = 0.0f;
  sample.params.frequency_penalty = 0.3f;
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 0);  // 2 - 0.3.
  sample.output = {0, 0};
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 1);  // 2 - 0.6.
  sample.params.frequency_penalty = 0.0f;
  sample.params.repetition_penalty = 2.0f;
  sample.output = {};
  EXPECT_EQ(Sample(sample, 0, &sampler)->token_id, 1);  // 2 / 2.
}

// Draws are the inverse of the cumulative distribution, so each of many draws may only name ids
// that the reference keeps, and frequencies must fit.
TEST(SamplerTest, FiltersKeepWhatTheNaiveReferenceKeeps) {
  Sampler sampler;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto one_of = [&random](std::vector<float> values) {
      return values[random() % values.size()];
    };
    const int size = 1 + static_cast<int>(random() % 400);
    Case sample{.logits = RandomLogits(&random, size, one_of({0.1f, 2.0f, 5.0f}))};
    sample.params.temperature = one_of({0.0f, 0.2f, 1.0f, 1.7f});
    sample.params.top_k = static_cast<int32_t>(one_of({0, 1, 5, 50, 1000}));
    sample.params.top_p = one_of({1.0f, 0.01f, 0.5f, 0.95f, 0.9999f});
    sample.params.min_p = one_of({0.0f, 0.0f, 0.1f, 1.0f});
    sample.params.repetition_penalty = one_of({1.0f, 1.3f, 0.5f});
    sample.params.presence_penalty = one_of({0.0f, 0.7f});
    sample.params.frequency_penalty = one_of({0.0f, 0.3f, -0.2f});
    sample.params.seed = seed;
    if (random() % 2 == 0) sample.params.logit_bias = {{random() % size, one_of({-100, -1, 2})}};
    for (int i = 0; i < 5; ++i) sample.prompt.push_back(static_cast<int32_t>(random() % size));
    for (int i = 0; i < 9; ++i) sample.output.push_back(static_cast<int32_t>(random() % size));

    const std::vector<double> expected = NaiveDistribution(sample);
    constexpr int kDraws = 200;
    std::vector<int> counts(size, 0);
    for (uint32_t draw = 0; draw < kDraws; ++draw) {
      const int32_t id = Sample(sample, draw, &sampler)->token_id;
      ASSERT_GT(expected[id], 0.0) << "id " << id << " is filtered out";
      ++counts[id];
    }
    for (int id = 0; id < size; ++id) {
      const double mean = kDraws * expected[id];
      // Bernstein's bound at 1e-9 for each id.
      const double slack = std::sqrt(2 * 21 * mean * (1 - expected[id])) + 14;
      ASSERT_NEAR(counts[id], mean, slack) << "id " << id;
    }
  }
}

TEST(SamplerTest, FrequenciesFitTheSoftmax) {
  Sampler sampler;
  Case sample{.logits = {0.0f, 1.0f, 2.0f, -1.0f, 0.5f, 1.5f, -3.0f, 0.2f}};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    sample.params.temperature = temperature;
    sample.params.seed = 11;
    const std::vector<double> expected = NaiveDistribution(sample);
    constexpr int kDraws = 40000;
    std::vector<int> counts(expected.size(), 0);
    for (uint32_t draw = 0; draw < kDraws; ++draw)
      ++counts[Sample(sample, draw, &sampler)->token_id];
    double chi_square = 0.0;
    for (size_t id = 0; id < expected.size(); ++id) {
      const double mean = kDraws * expected[id];
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
    EXPECT_LT(chi_square, 29.9) << "7 degrees of freedom: above 29.9 once in 10,000";
  }
}

TEST(SamplerTest, TheBoundOfTopPIsTheSmallestSufficientSet) {
  Sampler sampler;
  // Probabilities 1/2, 1/4, 1/8, 1/8.
  Case sample{.logits = {std::log(4.0f), std::log(2.0f), 0.0f, 0.0f}};
  sample.params.temperature = 1.0f;
  const auto kept = [&](float top_p) {
    sample.params.top_p = top_p;
    std::map<int32_t, int> counts;
    for (uint32_t draw = 0; draw < 500; ++draw) ++counts[Sample(sample, draw, &sampler)->token_id];
    return counts.size();
  };
  EXPECT_EQ(kept(0.49f), 1u);
  EXPECT_EQ(kept(0.74f), 2u);
  EXPECT_EQ(kept(0.76f), 3u);  // The smaller id of the two equal ones.
  EXPECT_EQ(kept(0.99f), 4u);
}

TEST(SamplerTest, AnswersDoNotDependOnWhatWasSampledBefore) {
  std::mt19937 random(3);
  std::vector<Case> cases;
  for (int i = 0; i < 40; ++i) {
    Case sample{.logits = RandomLogits(&random, 500 + i, 3.0f)};
    sample.params.temperature = 0.5f * static_cast<float>(i % 3);
    sample.params.top_k = i % 2 == 0 ? 0 : 40;
    sample.params.top_p = i % 5 == 0 ? 0.9f : 1.0f;
    sample.params.seed = i;
    sample.top_logprobs = i % 4;
    cases.push_back(sample);
  }
  std::vector<SampledToken> alone;
  for (const Case& sample : cases) {
    Sampler fresh;
    alone.push_back(*Sample(sample, 0, &fresh));
  }
  Sampler shared;
  for (int round = 0; round < 3; ++round) {
    for (size_t i = cases.size(); i-- > 0;) {
      const SampledToken token = *Sample(cases[i], 0, &shared);
      EXPECT_EQ(token.token_id, alone[i].token_id);
      EXPECT_EQ(token.logprob, alone[i].logprob);
    }
  }
}

TEST(SamplerTest, LogitsThatAreNotFiniteAreAnError) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Sampler sampler;
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const size_t place : {size_t{0}, size_t{5}, size_t{39}}) {
      Case sample{.logits = std::vector<float>(40, 1.0f)};
      sample.logits[place] = bad;
      EXPECT_EQ(Sample(sample, 0, &sampler).status().code(), absl::StatusCode::kInternal);
    }
  }
  const Case nothing{.logits = std::vector<float>(40, -kInfinity)};
  EXPECT_EQ(Sample(nothing, 0, &sampler).status().code(), absl::StatusCode::kInternal);
  Case some = nothing;
  some.logits[7] = 1.0f;
  some.params.temperature = 1.0f;
  EXPECT_EQ(Sample(some, 0, &sampler)->token_id, 7);
}

TEST(SamplerTest, ExtremeParametersStayDefined) {
  Sampler sampler;
  std::mt19937 random(5);
  for (uint32_t token = 0; token < 100; ++token) {
    Case sample{.logits = RandomLogits(&random, 300, 10.0f)};
    sample.params.temperature = token % 2 == 0 ? 1e-38f : 100.0f;
    sample.params.repetition_penalty = token % 3 == 0 ? 1e-38f : 100.0f;
    sample.params.presence_penalty = -100.0f;
    sample.params.frequency_penalty = -100.0f;
    sample.params.top_p = 1e-38f;
    sample.params.min_p = 1.0f;
    sample.params.logit_bias = {{3, 1000.0f}, {4, -1000.0f}};
    sample.output = {3, 3, 4};
    const absl::StatusOr<SampledToken> sampled = Sample(sample, token, &sampler);
    ASSERT_TRUE(sampled.ok());
    EXPECT_TRUE(0 <= sampled->token_id && sampled->token_id < 300);
    EXPECT_TRUE(std::isfinite(sampled->logprob));
  }
}

}  // namespace
}  // namespace structattn::engine
