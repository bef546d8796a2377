// Linear against a double-precision product, and its promise that an output's bits depend on its
// own row and weight alone. Every kernel that this CPU supports is tried, not only the chosen one,
// and that for AMX on tiles in software.
#include "kernels/linear/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/linear/linear_kernel.h"
#include "tests/kernels/linear/linear_kernels_under_test.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn::linear {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string NameOf(const testing::TestParamInfo<const LinearKernel*>& info) {
  return std::string(info.param->name) + "_" + std::string(Name(info.param->dtype));
}

// One product: weight [outputs, inputs], input [rows, inputs].
struct Shape {
  int64_t rows;
  int64_t outputs;
  int64_t inputs;
};

class LinearTest : public testing::TestWithParam<const LinearKernel*> {
 protected:
  const LinearKernel& kernel() const { return *GetParam(); }
  DType dtype() const { return kernel().dtype; }

  TypedBuffer Random(int64_t count, uint32_t seed) const {
    return TypedBuffer(dtype(), RandomNormal(count, seed));
  }

  PackedWeight Pack(const TypedBuffer& weight, const Shape& shape) {
    const MatrixView view = {weight.data(), weight.dtype(), shape.outputs, shape.inputs};
    return PackWeight({&view, 1}, Target());
  }

  std::vector<float> Multiply(const PackedWeight& weight, const TypedBuffer& input, int64_t rows) {
    std::vector<float> output(rows * weight.view.outputs, kNan);
    Linear({.pool = &pool_},
           {.input = input.data(), .weight = weight.view, .output = output.data(), .rows = rows});
    return output;
  }

  PackTarget Target() { return {dtype(), pool_, arena_, &kernel()}; }

  void TearDown() override { EXPECT_TRUE(SoftwareTilesAreReleased()); }

  ThreadPool pool_{2};
  WeightArena arena_;
};

// The error of a chain of `inputs` multiply-adds in any order, each rounded at most twice, is at
// most gamma * sum |x w| with gamma = 2 n u / (1 - 2 n u), u = 2^-24 (Higham 2002, section 3.1);
// then bias and before add two roundings. vdpbf16ps flushes subnormal terms: n x 2^-126.
void ExpectNear(const Shape& shape, const std::vector<float>& input,
                const std::vector<float>& weight, const std::vector<float>& bias,
                const std::vector<float>& before, const std::vector<float>& output) {
  const double unit = 0x1p-24;
  const double gamma = 2.0 * (shape.inputs + 2) * unit;
  int64_t failures = 0;
  for (int64_t m = 0; m < shape.rows; ++m) {
    for (int64_t n = 0; n < shape.outputs; ++n) {
      double sum = 0.0;
      double magnitude = 0.0;
      for (int64_t k = 0; k < shape.inputs; ++k) {
        const double term = static_cast<double>(input[m * shape.inputs + k]) *
                            static_cast<double>(weight[n * shape.inputs + k]);
        sum += term;
        magnitude += std::abs(term);
      }
      const double added =
          (bias.empty() ? 0.0 : bias[n]) + (before.empty() ? 0.0 : before[m * shape.outputs + n]);
      magnitude += std::abs(added) + (bias.empty() ? 0.0 : std::abs(bias[n]));
      const double bound = gamma * magnitude / (1.0 - gamma) + shape.inputs * 0x1p-126;
      const double error = std::abs(output[m * shape.outputs + n] - (sum + added));
      if (!(error <= bound) && failures++ == 0) {
        ADD_FAILURE() << "row " << m << " output " << n << " of " << shape.rows << "x"
                      << shape.outputs << "x" << shape.inputs << ": "
                      << output[m * shape.outputs + n] << " instead of " << sum + added
                      << ", bound " << bound;
      }
    }
  }
  EXPECT_EQ(failures, 0);
}

TEST_P(LinearTest, AgreesWithDoublePrecision) {
  const Shape shapes[] = {{1, 1, 1},      {1, 17, 1},      {2, 1, 37},      {3, 33, 2},
                          {4, 127, 17},   {5, 64, 127},    {6, 31, 577},    {7, 200, 1024},
                          {12, 97, 1025}, {13, 130, 63},   {17, 577, 37},   {96, 40, 64},
                          {97, 40, 65},   {127, 129, 511}, {200, 33, 1537}, {515, 290, 1057}};
  uint32_t seed = 1;
  for (const Shape& shape : shapes) {
    const TypedBuffer input = Random(shape.rows * shape.inputs, seed++);
    const TypedBuffer weight = Random(shape.outputs * shape.inputs, seed++);
    const PackedWeight packed = Pack(weight, shape);
    EXPECT_EQ(packed.view.outputs, shape.outputs);
    EXPECT_EQ(packed.view.inputs, shape.inputs);
    ExpectNear(shape, input.ToFloats(), weight.ToFloats(), {}, {},
               Multiply(packed, input, shape.rows));
  }
}

TEST_P(LinearTest, VocabularySizedMatrix) {
  const Shape shape = {2, 49152 + 3, 24};
  const TypedBuffer input = Random(shape.rows * shape.inputs, 71);
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 72);
  ExpectNear(shape, input.ToFloats(), weight.ToFloats(), {}, {},
             Multiply(Pack(weight, shape), input, shape.rows));
}

TEST_P(LinearTest, AddsBiasAndAccumulates) {
  const Shape shape = {19, 75, 129};
  const TypedBuffer input = Random(shape.rows * shape.inputs, 81);
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 82);
  const std::vector<float> bias = RandomNormal(shape.outputs, 83);
  const std::vector<float> before = RandomNormal(shape.rows * shape.outputs, 84);
  const PackedWeight packed = Pack(weight, shape);
  const std::vector<float> none;
  for (const bool with_bias : {false, true}) {
    for (const bool accumulate : {false, true}) {
      std::vector<float> output(shape.rows * shape.outputs, kNan);
      if (accumulate) output = before;
      Linear({.pool = &pool_}, {.input = input.data(),
                                .weight = packed.view,
                                .bias = with_bias ? bias.data() : nullptr,

                                .output = output.data(),
                                .accumulate = accumulate,
                                .rows = shape.rows});
      ExpectNear(shape, input.ToFloats(), weight.ToFloats(), with_bias ? bias : none,
                 accumulate ? before : none, output);
    }
  }
}

// Rows of a call of 500 equal, bit for bit, the same rows alone, in any smaller call, reversed, and
// on any number of threads.
TEST_P(LinearTest, BitsDependOnTheRowAlone) {
  const Shape shape = {500, 210, 1300};
  const TypedBuffer input = Random(shape.rows * shape.inputs, 91);
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 92);
  const PackedWeight packed = Pack(weight, shape);
  const std::vector<float> expected = Multiply(packed, input, shape.rows);
  const auto expect_rows = [&](const std::vector<float>& output, int64_t first, int64_t rows) {
    EXPECT_EQ(0, std::memcmp(output.data(), expected.data() + first * shape.outputs,
                             rows * shape.outputs * sizeof(float)))
        << rows << " rows from " << first;
  };
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 24, 25, 64, 96, 97}) {
    for (const int64_t first : {int64_t{0}, int64_t{41}, shape.rows - rows}) {
      const TypedBuffer part = input.Slice(first * shape.inputs, rows * shape.inputs);
      expect_rows(Multiply(packed, part, rows), first, rows);
    }
  }
  for (const int threads : {1, 3, 5}) {
    ThreadPool pool(threads);
    std::vector<float> output(shape.rows * shape.outputs, kNan);
    Linear({.pool = &pool}, {.input = input.data(),
                             .weight = packed.view,
                             .output = output.data(),
                             .rows = shape.rows});
    expect_rows(output, 0, shape.rows);
  }
  const std::vector<float> reversed =
      Multiply(packed, input.ReversedRows(shape.inputs), shape.rows);
  for (int64_t m = 0; m < shape.rows; ++m) {
    const float* row = reversed.data() + (shape.rows - 1 - m) * shape.outputs;
    ASSERT_EQ(0,
              std::memcmp(row, expected.data() + m * shape.outputs, shape.outputs * sizeof(float)))
        << m;
  }
}

// Which outputs share a panel, and so an item, must not matter either.
TEST_P(LinearTest, BitsDependOnTheWeightRowAlone) {
  const Shape shape = {9, 140, 777};
  const TypedBuffer input = Random(shape.rows * shape.inputs, 93);
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 94);
  const std::vector<float> expected = Multiply(Pack(weight, shape), input, shape.rows);
  const int64_t first = 29;
  const int64_t outputs = 43;
  const TypedBuffer part = weight.Slice(first * shape.inputs, outputs * shape.inputs);
  const std::vector<float> output =
      Multiply(Pack(part, {shape.rows, outputs, shape.inputs}), input, shape.rows);
  for (int64_t m = 0; m < shape.rows; ++m) {
    EXPECT_EQ(0, std::memcmp(output.data() + m * outputs,
                             expected.data() + m * shape.outputs + first, outputs * sizeof(float)));
  }
}

TEST_P(LinearTest, SpoiledRowsDoNotDisturbOthers) {
  const Shape shape = {25, 70, 131};
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 95);
  const PackedWeight packed = Pack(weight, shape);
  std::vector<float> values = RandomNormal(shape.rows * shape.inputs, 96);
  const std::vector<float> expected = Multiply(packed, TypedBuffer(dtype(), values), shape.rows);
  values[3 * shape.inputs + 130] = kNan;
  values[4 * shape.inputs] = kInfinity;
  values[24 * shape.inputs + 64] = -kInfinity;
  const std::vector<float> output = Multiply(packed, TypedBuffer(dtype(), values), shape.rows);
  for (int64_t m = 0; m < shape.rows; ++m) {
    const float* row = output.data() + m * shape.outputs;
    if (m == 3 || m == 4 || m == 24) {
      for (int64_t n = 0; n < shape.outputs; ++n) EXPECT_FALSE(std::isfinite(row[n])) << m;
    } else {
      EXPECT_EQ(
          0, std::memcmp(row, expected.data() + m * shape.outputs, shape.outputs * sizeof(float)))
          << m;
    }
  }
}

// Inputs before and behind, and outputs around the call's rows, are neither used nor touched.
TEST_P(LinearTest, StaysWithinItsRows) {
  const Shape shape = {5, 37, 67};
  const int64_t margin = 64;
  const TypedBuffer weight = Random(shape.outputs * shape.inputs, 97);
  const PackedWeight packed = Pack(weight, shape);
  const std::vector<float> values = RandomNormal(shape.rows * shape.inputs, 98);
  std::vector<float> padded(margin, kNan);
  padded.insert(padded.end(), values.begin(), values.end());
  padded.resize(values.size() + 2 * margin, kNan);
  const TypedBuffer input(dtype(), padded);
  std::vector<float> output(shape.rows * shape.outputs + 2 * margin, -7.0f);
  Linear({.pool = &pool_}, {.input = input.At(margin),
                            .weight = packed.view,
                            .output = output.data() + margin,
                            .rows = shape.rows});
  const std::vector<float> expected = Multiply(packed, TypedBuffer(dtype(), values), shape.rows);
  EXPECT_EQ(0,
            std::memcmp(output.data() + margin, expected.data(), expected.size() * sizeof(float)));
  for (int64_t i = 0; i < margin; ++i) {
    EXPECT_EQ(output[i], -7.0f);
    EXPECT_EQ(output[output.size() - 1 - i], -7.0f);
  }
}

TEST_P(LinearTest, NoRowsIsNothing) {
  const TypedBuffer weight = Random(6, 99);
  EXPECT_TRUE(Multiply(Pack(weight, {0, 2, 3}), weight, 0).empty());
}

// Products of several weights and rows, shared out together, equal each product alone, bit for bit.
TEST_P(LinearTest, ManyProductsAreThoseOfEachAlone) {
  const Shape shapes[] = {{1, 70, 129}, {0, 33, 64}, {200, 96, 65}, {33, 1, 577}, {1, 1000, 40}};
  std::vector<TypedBuffer> inputs;
  std::vector<PackedWeight> weights;
  std::vector<std::vector<float>> outputs;
  uint32_t seed = 300;
  for (const Shape& shape : shapes) {
    inputs.push_back(Random(shape.rows * shape.inputs, seed++));
    weights.push_back(Pack(Random(shape.outputs * shape.inputs, seed++), shape));
    outputs.emplace_back(shape.rows * shape.outputs, kNan);
  }
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<LinearParams> products;
    for (size_t i = 0; i < outputs.size(); ++i) {
      products.push_back({.input = inputs[i].data(),
                          .weight = weights[i].view,
                          .output = outputs[i].data(),
                          .rows = shapes[i].rows});
    }
    LinearMany({.pool = &pool}, products);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::vector<float> alone = Multiply(weights[i], inputs[i], shapes[i].rows);
      EXPECT_EQ(0, std::memcmp(outputs[i].data(), alone.data(), alone.size() * sizeof(float))) << i;
      std::fill(outputs[i].begin(), outputs[i].end(), kNan);
    }
    LinearMany({.pool = &pool}, {});
  }
}

// Stacked views of mixed source types equal one view of the converted whole.
TEST_P(LinearTest, StacksAndConvertsViews) {
  const int64_t inputs = 201;
  const std::vector<float> values = RandomNormal(3 * 41 * inputs, 100);
  std::vector<TypedBuffer> parts;
  std::vector<MatrixView> views;
  std::vector<float> joined;
  for (const DType source : {DType::kFloat32, DType::kBfloat16, DType::kFloat16}) {
    const auto begin = values.begin() + static_cast<int64_t>(parts.size()) * 41 * inputs;
    parts.emplace_back(source, std::vector<float>(begin, begin + 41 * inputs));
    const std::vector<float> stored = parts.back().ToFloats();
    joined.insert(joined.end(), stored.begin(), stored.end());
  }
  for (const TypedBuffer& part : parts) views.push_back({part.data(), part.dtype(), 41, inputs});
  const PackedWeight stacked = PackWeight(views, Target());
  const TypedBuffer whole(dtype(), joined);
  const PackedWeight single = Pack(whole, {0, 3 * 41, inputs});
  ASSERT_EQ(stacked.bytes, single.bytes);
  EXPECT_EQ(0, std::memcmp(stacked.view.panels, single.view.panels, single.bytes));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(stacked.view.panels) % 64, 0u);
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearTest, testing::ValuesIn(LinearKernelsUnderTest()), NameOf);

TEST(PackedWeightTest, ChoosesASupportedKernelOfTheDtype) {
  ThreadPool pool(1);
  WeightArena arena;
  const float one = 1.0f;
  const MatrixView view = {&one, DType::kFloat32, 1, 1};
  for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16}) {
    const PackedWeight weight = PackWeight({&view, 1}, {dtype, pool, arena});
    EXPECT_EQ(weight.view.input_dtype, dtype);
    EXPECT_EQ(weight.view.kernel->name, BestLinearKernel(dtype).name);
  }
}

}  // namespace
}  // namespace structattn::linear
