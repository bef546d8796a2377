// The choice of experts and the sum of their outputs against double precision; ties, and that a
// row's bits depend on no other row and no number of threads.
#include "kernels/experts/experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Choice {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

struct Shape {
  int64_t rows;
  int32_t experts;
  int32_t chosen;
  bool normalizes = false;
  int64_t stride = 0;  // 0: experts.
};

ChooseExpertsParams ParamsOf(const Shape& shape, const std::vector<float>& logits, Choice* choice) {
  choice->ids.assign(shape.rows * shape.chosen, -1);
  choice->weights.assign(shape.rows * shape.chosen, kNan);
  return {.logits = logits.data(),
          .stride = shape.stride == 0 ? shape.experts : shape.stride,
          .rows = shape.rows,
          .experts = shape.experts,
          .chosen = shape.chosen,
          .normalizes = shape.normalizes,
          .ids = choice->ids.data(),
          .weights = choice->weights.data()};
}

Choice Choose(const Shape& shape, const std::vector<float>& logits, int threads = 2) {
  Choice choice;
  ThreadPool pool(threads);
  ChooseExperts(pool, ParamsOf(shape, logits, &choice));
  return choice;
}

// A literal softmax, sort and normalisation of one row, ids ascending.
void ExpectRow(const Shape& shape, const float* logits, const int32_t* ids, const float* weights) {
  std::vector<double> share(shape.experts);
  const double largest = *std::max_element(logits, logits + shape.experts);
  for (int32_t i = 0; i < shape.experts; ++i) share[i] = std::exp(logits[i] - largest);
  const double total = std::accumulate(share.begin(), share.end(), 0.0);
  std::vector<int32_t> order(shape.experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  order.resize(shape.chosen);
  double chosen_total = 0.0;
  for (const int32_t id : order) chosen_total += share[id] / total;
  std::sort(order.begin(), order.end());
  for (int32_t i = 0; i < shape.chosen; ++i) {
    ASSERT_EQ(ids[i], order[i]);
    const double expected = share[order[i]] / total / (shape.normalizes ? chosen_total : 1.0);
    // Each exponential, sum and quotient is rounded: some `experts` units in the last place.
    EXPECT_NEAR(weights[i], expected, expected * (2 * shape.experts + 8) * 0x1p-23);
  }
}

TEST(ChooseExpertsTest, AgreesWithDoublePrecision) {
  for (const Shape& shape : {Shape{1, 1, 1},
                             {3, 8, 2},
                             {17, 8, 8, true},
                             {5, 60, 4},
                             {40, 60, 4, true, 61},
                             {33, 128, 8, true},
                             {2, 577, 3}}) {
    const int64_t stride = shape.stride == 0 ? shape.experts : shape.stride;
    std::vector<float> logits = RandomNormal(shape.rows * stride, 7);
    for (float& logit : logits) logit *= 3.0f;
    const Choice choice = Choose(shape, logits);
    for (int64_t row = 0; row < shape.rows; ++row) {
      ExpectRow(shape, logits.data() + row * stride, choice.ids.data() + row * shape.chosen,
                choice.weights.data() + row * shape.chosen);
    }
  }
}

TEST(ChooseExpertsTest, OfEqualLogitsTheLowerExpertWins) {
  const Choice choice = Choose({2, 6, 3}, {1, 5, 1, 1, 5, 1,  //
                                           0, 0, 0, 0, 0, 0});
  EXPECT_THAT(choice.ids, ElementsAre(0, 1, 4, 0, 1, 2));
}

TEST(ChooseExpertsTest, ExtremeLogitsGiveSharesOrNoNumbersAndNeverAWrongExpert) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Choice far = Choose({2, 4, 2, true}, {3e38f, -3e38f, 0, 1,  //
                                              -kInfinity, 2, -kInfinity, -kInfinity});
  EXPECT_THAT(far.ids, ElementsAre(0, 3, 0, 1));
  EXPECT_THAT(far.weights, ElementsAre(1, 0, 0, 1));
  for (const float bad : {kNan, kInfinity}) {
    const Choice none = Choose({1, 4, 3, true}, {bad, 1, kNan, 2});
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(std::isnan(none.weights[i]));
      EXPECT_GE(none.ids[i], 0);
      EXPECT_LT(none.ids[i], 4);
    }
  }
}

TEST(SortByExpertTest, PairsAreInOrderOfExpertsAndThenOfRows) {
  Choice choice;
  const std::vector<float> none;
  const ChooseExpertsParams params = ParamsOf({4, 5, 2}, none, &choice);
  choice.ids = {1, 4, 0, 1, 1, 4, 0, 4};
  ChooseExpertsParams same = params;
  same.ids = choice.ids.data();
  ExpertPairs pairs;
  SortByExpert(same, &pairs);
  EXPECT_THAT(pairs.rows, ElementsAre(1, 3, 0, 1, 2, 0, 2, 3));
  EXPECT_THAT(pairs.places, ElementsAre(2, 5, 0, 3, 4, 6, 1, 7));
  ASSERT_EQ(pairs.ranges.size(), 3u);
  EXPECT_EQ(pairs.ranges[1].expert, 1);
  EXPECT_EQ(pairs.ranges[1].begin, 2);
  EXPECT_EQ(pairs.ranges[1].end, 5);
  EXPECT_EQ(pairs.ranges[2].expert, 4);
  same.rows = 0;
  SortByExpert(same, &pairs);
  EXPECT_TRUE(pairs.ranges.empty());
}

TEST(GatherRowsTest, CopiesRowsOfAnyWidth) {
  ThreadPool pool(2);
  for (const int64_t bytes : {2, 34, 4096}) {
    std::vector<char> from(5 * bytes);
    for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<char>(i * 7 + i / bytes);
    const std::vector<int32_t> rows = {4, 0, 0, 3};
    std::vector<char> to(4 * bytes + 1, 'x');
    GatherRows(pool, {.from = from.data(),
                      .rows = rows.data(),
                      .to = to.data(),
                      .count = 4,
                      .row_bytes = bytes});
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(std::memcmp(&to[i * bytes], &from[rows[i] * bytes], bytes), 0);
    }
    EXPECT_EQ(to.back(), 'x');
  }
}

struct SumCase {
  int64_t rows;
  int64_t columns;
  int32_t chosen;
  bool shares;
};

class SumExpertsTest : public testing::TestWithParam<SumCase> {};

TEST_P(SumExpertsTest, AgreesWithDoublePrecisionAndWithEachRowAlone) {
  const auto& [rows, columns, chosen, shares] = GetParam();
  const std::vector<float> outputs = RandomNormal(rows * chosen * columns, 1);
  const std::vector<float> weights = RandomNormal(rows * chosen, 2);
  const std::vector<float> shared = RandomNormal(rows * columns, 3);
  const std::vector<float> gate = RandomNormal(rows * 3, 4);
  const std::vector<float> before = RandomNormal(rows * columns, 5);
  std::vector<int32_t> places(rows * chosen);
  for (size_t i = 0; i < places.size(); ++i)
    places[i] = static_cast<int32_t>(places.size() - 1 - i);
  const auto run = [&](int64_t begin, int64_t end, int threads) {
    ThreadPool pool(threads);
    std::vector<float> sum(before.begin() + begin * columns, before.begin() + end * columns);
    SumExperts(pool, {.outputs = outputs.data(),
                      .places = places.data() + begin * chosen,
                      .weights = weights.data() + begin * chosen,
                      .chosen = chosen,
                      .shared = shares ? shared.data() + begin * columns : nullptr,
                      .shared_gate = shares ? gate.data() + begin * 3 : nullptr,
                      .gate_stride = 3,
                      .sum = sum.data(),
                      .rows = end - begin,
                      .columns = columns});
    return sum;
  };
  const std::vector<float> all = run(0, rows, 2);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<float> alone = run(row, row + 1, 1);
    EXPECT_EQ(std::memcmp(alone.data(), &all[row * columns], columns * sizeof(float)), 0);
    for (int64_t j = 0; j < columns; ++j) {
      double sum = before[row * columns + j];
      double magnitude = std::abs(sum);
      const auto add = [&](double term) {
        sum += term;
        magnitude += std::abs(term);
      };
      for (int32_t i = 0; i < chosen; ++i) {
        const int64_t pair = row * chosen + i;
        add(double{weights[pair]} * outputs[places[pair] * columns + j]);
      }
      if (shares) add(shared[row * columns + j] / (1.0 + std::exp(-double{gate[row * 3]})));
      EXPECT_NEAR(all[row * columns + j], sum, magnitude * (chosen + 8) * 0x1p-23);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SumExpertsTest,
                         testing::Values(SumCase{1, 1, 1, false}, SumCase{3, 17, 2, true},
                                         SumCase{37, 577, 4, true}, SumCase{9, 256, 8, false},
                                         SumCase{0, 5, 2, true}));

}  // namespace
}  // namespace structattn
