// SummarizeLogits against double precision, on every instruction set that this CPU supports.
#include "kernels/sampling/summarize_logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "hwy/targets.h"

namespace structattn {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SummarizeLogitsTest : public testing::TestWithParam<int64_t> {
 protected:
  SummarizeLogitsTest() {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().DeInit();
  }
  ~SummarizeLogitsTest() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
};

double ReferenceLogSumExp(const std::vector<float>& logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// Each exponential is within 2e-7, with 8 float additions of at most 6e-8 each on top: the sum is
// within 7e-7, and its logarithm as far in absolute terms.
constexpr double kTolerance = 7e-7;

TEST_P(SummarizeLogitsTest, AgreesWithDoublePrecision) {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const int size : {1, 2, 15, 16, 17, 127, 128, 129, 577, 4096, 49152, 151936}) {
    for (const float spread : {0.01f, 3.0f, 60.0f}) {
      std::normal_distribution<float> normal(-7.0f, spread);
      std::vector<float> logits(size);
      for (float& logit : logits) logit = normal(random);
      const LogitsSummary summary = SummarizeLogits(logits);
      EXPECT_NEAR(summary.log_sum_exp, ReferenceLogSumExp(logits), kTolerance) << size;
      EXPECT_EQ(summary.best_id, std::ranges::max_element(logits) - logits.begin()) << size;
    }
  }
}

TEST_P(SummarizeLogitsTest, TheFirstOfEqualsIsTheBest) {
  std::vector<float> logits(1000, -1.0f);
  for (const int first : {0, 1, 15, 16, 31, 500, 990, 999}) {
    std::ranges::fill(logits, -1.0f);
    for (int i = first; i < 1000; ++i) logits[i] = 2.0f;
    EXPECT_EQ(SummarizeLogits(logits).best_id, first);
  }
}

TEST_P(SummarizeLogitsTest, ImpossibleTokensCountForNothing) {
  std::vector<float> logits(301, -kInfinity);
  logits[300] = 4.0f;
  EXPECT_EQ(SummarizeLogits(logits).log_sum_exp, 4.0);
  EXPECT_EQ(SummarizeLogits(logits).best_id, 300);
}

TEST_P(SummarizeLogitsTest, WhatHasNoSoftmaxIsNan) {
  for (const int size : {1, 16, 130, 1000}) {
    const std::vector<float> impossible(size, -kInfinity);
    EXPECT_TRUE(std::isnan(SummarizeLogits(impossible).log_sum_exp)) << size;
    for (const int at : {0, size / 2, size - 1}) {
      for (const float bad : {kNan, kInfinity}) {
        std::vector<float> logits(size, 1.0f);
        logits[at] = bad;
        EXPECT_FALSE(std::isfinite(SummarizeLogits(logits).log_sum_exp)) << size << " " << at;
      }
    }
  }
}

std::vector<int64_t> SupportedTargets() {
  std::vector<int64_t> targets;
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Targets, SummarizeLogitsTest, testing::ValuesIn(SupportedTargets()),
                         [](const testing::TestParamInfo<int64_t>& info) {
                           return hwy::TargetName(info.param);
                         });

}  // namespace
}  // namespace structattn
