// SiluMul against double precision over the whole range of floats, for every output type.
#include "kernels/activation/silu_mul.h"

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

TypedBuffer Gate(ThreadPool& pool, DType dtype, int64_t rows, const std::vector<float>& gate_up) {
  const int64_t columns = static_cast<int64_t>(gate_up.size()) / (2 * rows);
  TypedBuffer output(dtype, std::vector<float>(rows * columns, kNan));
  RunOnTestDevice(pool, {Read(gate_up), Written(output)}, [&](const KernelContext& context) {
    SiluMul(context, {.gate_up = gate_up.data(),
                      .output = output.data(),
                      .output_dtype = dtype,
                      .rows = rows,
                      .columns = columns});
  });
  return output;
}

double Reference(float gate, float up) {
  return gate / (1.0 + std::exp(-static_cast<double>(gate))) * up;
}

// 1 ulp (2u) of the exponential, at most its share of the denominator, and one rounding each for
// sum, quotient and product: 5u. Where exp(-x) overflows (x < -88.7) the result is below 2^-120.
double Bound(DType dtype, double value, float up) {
  return 5.0 * 0x1p-24 * std::abs(value) + 0x1p-120 * (1.0 + std::abs(up)) +
         RoundingError(dtype, value);
}

class SiluMulTest : public testing::TestWithParam<DType> {};

TEST_P(SiluMulTest, AgreesWithDoublePrecision) {
  ThreadPool pool(2);
  uint32_t seed = 1;
  for (const int64_t columns : {1, 3, 16, 17, 37, 127, 577, 11008}) {
    const int64_t rows = columns > 1000 ? 3 : 29;
    std::vector<float> gate_up = RandomNormal(rows * 2 * columns, seed++);
    for (float& value : gate_up) value *= 6.0f;
    const TypedBuffer output = Gate(pool, GetParam(), rows, gate_up);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const int64_t at = i / columns * 2 * columns + i % columns;
      const double expected = Reference(gate_up[at], gate_up[at + columns]);
      ASSERT_NEAR(output.Get(i), expected, Bound(GetParam(), expected, gate_up[at + columns]))
          << "gate " << gate_up[at] << " up " << gate_up[at + columns];
    }
  }
}

TEST_P(SiluMulTest, LargeGatesStayFinite) {
  ThreadPool pool(1);
  std::vector<float> gates;
  for (const float magnitude : {0.0f, 1e-38f, 20.0f, 87.0f, 88.8f, 104.0f, 150.0f, 1e4f, 6e4f}) {
    gates.push_back(magnitude);
    gates.push_back(-magnitude);
  }
  std::vector<float> gate_up = gates;
  gate_up.resize(2 * gates.size(), 1.0f);
  const TypedBuffer output = Gate(pool, GetParam(), 1, gate_up);
  for (size_t i = 0; i < gates.size(); ++i) {
    const double expected = Reference(gates[i], 1.0f);
    EXPECT_NEAR(output.Get(i), expected, Bound(GetParam(), expected, 1.0f)) << gates[i];
  }
}

TEST_P(SiluMulTest, NanStaysInItsElement) {
  ThreadPool pool(1);
  const int64_t columns = 37;
  std::vector<float> gate_up = RandomNormal(2 * columns, 81);
  const TypedBuffer expected = Gate(pool, GetParam(), 1, gate_up);
  gate_up[3] = kNan;
  gate_up[columns + 36] = kNan;
  const TypedBuffer output = Gate(pool, GetParam(), 1, gate_up);
  for (int64_t i = 0; i < columns; ++i) {
    if (i == 3 || i == 36) {
      EXPECT_TRUE(std::isnan(output.Get(i)));
    } else {
      EXPECT_EQ(output.Get(i), expected.Get(i));
    }
  }
}

// An element's bits depend on its two inputs alone: not on its column, rows or threads.
TEST_P(SiluMulTest, BitsDependOnTheElementAlone) {
  ThreadPool one(1);
  ThreadPool three(3);
  const int64_t rows = 50;
  const int64_t columns = 577;
  const std::vector<float> gate_up = RandomNormal(rows * 2 * columns, 91);
  const TypedBuffer together = Gate(three, GetParam(), rows, gate_up);
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = gate_up.begin() + row * 2 * columns;
    const TypedBuffer alone = Gate(one, GetParam(), 1, {begin, begin + 2 * columns});
    EXPECT_EQ(
        0, std::memcmp(together.At(row * columns), alone.data(), columns * ByteSize(GetParam())));
    const TypedBuffer last = Gate(one, GetParam(), 1, {begin[576], begin[2 * 577 - 1]});
    EXPECT_EQ(last.Get(0), alone.Get(576));
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, SiluMulTest,
                         testing::Values(DType::kFloat32, DType::kBfloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace structattn
