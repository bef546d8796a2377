// RmsNorm against double precision, for every output type and awkward sizes.
#include "kernels/norm/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/kernels/test_device.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kEpsilon = 1e-5f;

struct Rows {
  int64_t rows;
  int64_t columns;
};

TypedBuffer Normalise(ThreadPool& pool, const Rows& shape, DType dtype,
                      const std::vector<float>& input, const std::vector<float>& weight) {
  TypedBuffer output(dtype, std::vector<float>(input.size(), kNan));
  RunOnTestDevice(pool, {Read(input), Read(weight), Written(output)},
                  [&](const KernelContext& context) {
                    RmsNorm(context, {.input = input.data(),
                                      .weight = weight.data(),
                                      .output = output.data(),
                                      .output_dtype = dtype,
                                      .rows = shape.rows,
                                      .columns = shape.columns,
                                      .epsilon = kEpsilon});
                  });
  return output;
}

// Relative error: the sum of n squares in 16 chains or more has at most n/16 + 6 roundings, halved
// by the square root; mean, epsilon, root, quotient and the two products add six more, each u =
// 2^-24.
double Bound(DType dtype, int64_t columns, double value) {
  return (static_cast<double>(columns) / 32.0 + 9.0) * 0x1p-24 * std::abs(value) +
         RoundingError(dtype, value);
}

class RmsNormTest : public testing::TestWithParam<DType> {};

TEST_P(RmsNormTest, AgreesWithDoublePrecision) {
  ThreadPool pool(2);
  const Rows shapes[] = {{1, 1},  {3, 15},   {2, 16},   {5, 17},
                         {1, 37}, {37, 127}, {61, 577}, {2, 11008}};
  uint32_t seed = 1;
  for (const Rows& shape : shapes) {
    const std::vector<float> input = RandomNormal(shape.rows * shape.columns, seed++);
    const std::vector<float> weight = RandomNormal(shape.columns, seed++);
    const TypedBuffer output = Normalise(pool, shape, GetParam(), input, weight);
    for (int64_t row = 0; row < shape.rows; ++row) {
      double sum = 0.0;
      for (int64_t i = 0; i < shape.columns; ++i) {
        sum += std::pow(static_cast<double>(input[row * shape.columns + i]), 2);
      }
      const double scale = 1.0 / std::sqrt(sum / static_cast<double>(shape.columns) + kEpsilon);
      for (int64_t i = 0; i < shape.columns; ++i) {
        const double expected = input[row * shape.columns + i] * scale * weight[i];
        ASSERT_NEAR(output.Get(row * shape.columns + i), expected,
                    Bound(GetParam(), shape.columns, expected))
            << "row " << row << " column " << i << " of " << shape.columns;
      }
    }
  }
}

// The 16-bit outputs are the float outputs, rounded to nearest with ties to even.
TEST_P(RmsNormTest, RoundsTheFloatResult) {
  ThreadPool pool(1);
  const Rows shape = {9, 333};
  const std::vector<float> input = RandomNormal(shape.rows * shape.columns, 51);
  const std::vector<float> weight = RandomNormal(shape.columns, 52);
  const TypedBuffer wide = Normalise(pool, shape, DType::kFloat32, input, weight);
  const TypedBuffer rounded(GetParam(), wide.ToFloats());
  const TypedBuffer output = Normalise(pool, shape, GetParam(), input, weight);
  EXPECT_EQ(output.ToFloats(), rounded.ToFloats());
}

TEST_P(RmsNormTest, RowsAreIndependent) {
  const Rows shape = {120, 577};
  std::vector<float> input = RandomNormal(shape.rows * shape.columns, 61);
  const std::vector<float> weight = RandomNormal(shape.columns, 62);
  ThreadPool one(1);
  ThreadPool three(3);
  const TypedBuffer expected = Normalise(one, shape, GetParam(), input, weight);
  input[5 * shape.columns + 576] = kNan;
  input[6 * shape.columns] = std::numeric_limits<float>::infinity();
  const TypedBuffer output = Normalise(three, shape, GetParam(), input, weight);
  const size_t row_bytes = shape.columns * ByteSize(GetParam());
  for (int64_t row = 0; row < shape.rows; ++row) {
    const bool spoiled = row == 5 || row == 6;
    EXPECT_EQ(spoiled, std::memcmp(output.At(row * shape.columns), expected.At(row * shape.columns),
                                   row_bytes) != 0)
        << row;
  }
  EXPECT_TRUE(std::isnan(output.Get(5 * shape.columns)));
}

TEST_P(RmsNormTest, ZerosGiveZeros) {
  ThreadPool pool(1);
  const TypedBuffer output =
      Normalise(pool, {1, 100}, GetParam(), std::vector<float>(100, 0.0f), RandomNormal(100, 71));
  for (const float value : output.ToFloats()) EXPECT_EQ(value, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(DTypes, RmsNormTest,
                         testing::Values(DType::kFloat32, DType::kBfloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace structattn
