// Linear over quantized weights, every kernel that this CPU supports and every format, bit for
// bit. Inputs of bfloat16: what quantized_dot.cc defines, computed naively here, which in turn
// is held against double precision. Others: what the same kernel gives over the values that the
// format means; linear_test holds that against double precision. dequantize_test holds the values
// against the formats' reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "tests/kernels/linear/linear_kernels_under_test.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn::linear {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Random bytes for codes and strip scales, tame halves for d and m: subnormal ones among them.
std::vector<char> RandomQuantBlocks(QuantFormat format, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t bytes = QuantLayoutOf(format).bytes;
  std::vector<char> blocks(count * bytes);
  for (char& byte : blocks) byte = static_cast<char>(random());
  const auto put_half = [&](char* at) {
    const float value = std::ldexp(static_cast<float>(random() % 2000) / 1000.0f - 1.0f,
                                   -static_cast<int>(random() % 20));
    const Float16 half = FromFloat<Float16>(value);
    std::memcpy(at, &half.bits, sizeof(half.bits));
  };
  for (int64_t block = 0; block < count; ++block) {
    char* const at = blocks.data() + block * bytes;
    put_half(format == QuantFormat::kQ6_K ? at + 208 : at);
    if (QuantLayoutOf(format).has_shift) put_half(at + 2);
  }
  return blocks;
}

// One product: blocks [outputs, inputs].
struct Shape {
  int64_t rows;
  int64_t outputs;
  int64_t blocks;  // Along the inputs.
};

using Case = std::tuple<const LinearKernel*, QuantFormat>;

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const auto& [kernel, format] = info.param;
  return std::string(kernel->name) + "_" + std::string(Name(kernel->dtype)) + "_" +
         std::string(Name(format));
}

// 32 inputs of a row, by the definition in quantized_dot.cc; absent ones are 0.
struct FixedInputs {
  int64_t n[kChunkInputs] = {};
  float unit = 0.0f;

  FixedInputs(const TypedBuffer& input, int64_t begin, int64_t end) {
    double largest = 0.0;
    bool finite = true;
    for (int64_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(input.Get(i));
      largest = std::max(largest, std::abs(static_cast<double>(input.Get(i))));
    }
    int exponent = -86;
    while (std::ldexp(1.0, exponent) <= largest && finite) ++exponent;
    unit = finite ? std::ldexp(1.0f, exponent - 14) : kNan;
    for (int64_t i = begin; i < end && finite; ++i) {
      n[i - begin] = std::llrint(std::ldexp(static_cast<double>(input.Get(i)), 14 - exponent));
    }
  }
};

// The weights of one chunk of a block.
struct ChunkWeights {
  int64_t codes[kChunkInputs];  // Less their offset.
  float scales[2];              // One for each half.
  float shift;

  ChunkWeights(QuantFormat format, const UnpackedQuantBlock& unpacked, int chunk) {
    const QuantBlockLayout layout = QuantLayoutOf(format);
    for (int i = 0; i < kChunkInputs; ++i) {
      const uint8_t code = unpacked.codes[chunk * kChunkInputs + i];
      codes[i] = layout.code_bits == 8 ? static_cast<int8_t>(code) : code - layout.offset;
    }
    const float d = ToFloat(Float16{unpacked.scale});
    const float m = ToFloat(Float16{unpacked.shift});
    scales[0] = scales[1] = d;
    shift = m;
    if (!layout.has_strip_scales()) return;
    for (int half = 0; half < 2; ++half) {
      const uint8_t scale =
          unpacked
              .strip_scales[chunk * layout.strips_per_chunk + half * (layout.strips_per_chunk - 1)];
      scales[half] = d * (format == QuantFormat::kQ6_K ? static_cast<int8_t>(scale) : scale);
    }
    shift = -(m * unpacked.minima[chunk]);
  }
};

// One output by that definition.
float InIntegers(const QuantMatrixView& view, int64_t output, const TypedBuffer& input,
                 int64_t row) {
  const QuantBlockLayout layout = QuantLayoutOf(view.format);
  float sum = 0.0f;
  for (int64_t begin = 0; begin < view.columns; begin += kChunkInputs) {
    const int64_t end = std::min<int64_t>(begin + kChunkInputs, view.columns);
    const FixedInputs x(input, row * view.columns + begin, row * view.columns + end);
    const char* const block = static_cast<const char*>(view.data) + output * view.row_bytes() +
                              begin / layout.inputs() * QuantLayoutOf(view.format).bytes;
    const ChunkWeights w(view.format, ReadQuantBlock(view.format, block),
                         static_cast<int>(begin % layout.inputs() / kChunkInputs));
    int64_t totals[2] = {};
    int64_t inputs = 0;
    for (int i = 0; i < kChunkInputs; ++i) {
      const int strip = layout.strips_per_chunk == 2 ? i / (kChunkInputs / 2) : 0;
      totals[strip] += x.n[i] * w.codes[i];
      inputs += x.n[i];
    }
    for (int strip = 0; strip < layout.strips_per_chunk; ++strip) {
      sum = std::fma(static_cast<float>(totals[strip]), w.scales[strip] * x.unit, sum);
    }
    if (layout.has_shift) sum = std::fma(static_cast<float>(inputs), w.shift * x.unit, sum);
  }
  return sum;
}

class QuantizedLinearTest : public testing::TestWithParam<Case> {
 protected:
  const LinearKernel& kernel() const { return *std::get<0>(GetParam()); }
  QuantFormat format() const { return std::get<1>(GetParam()); }
  int64_t BlockInputs() const { return QuantLayoutOf(format()).inputs(); }

  QuantMatrixView View(const std::vector<char>& blocks, const Shape& shape) const {
    return {blocks.data(), format(), shape.outputs, shape.blocks * BlockInputs()};
  }

  PackedWeight Pack(const std::vector<char>& blocks, const Shape& shape) {
    const QuantMatrixView view = View(blocks, shape);
    return PackWeight({&view, 1}, {kernel().dtype, pool_, arena_, &kernel()});
  }

  std::vector<float> Expand(const std::vector<char>& blocks) const {
    const int64_t count = static_cast<int64_t>(blocks.size()) / QuantLayoutOf(format()).bytes;
    std::vector<float> values(count * BlockInputs());
    Dequantize(format(), blocks.data(), count, values.data());
    return values;
  }

  // The kernel that multiplies the same floats when they are not quantized.
  const LinearKernel& Twin() const {
    for (const LinearKernel* other : LinearKernelsUnderTest()) {
      if (other->name == kernel().name && other->dtype == DType::kFloat32) return *other;
    }
    return kernel();
  }

  std::vector<float> Expected(const std::vector<char>& blocks, const TypedBuffer& input,
                              const Shape& shape) {
    if (kernel().dtype == DType::kBfloat16) {
      std::vector<float> sums(shape.rows * shape.outputs);
      for (int64_t i = 0; i < shape.rows * shape.outputs; ++i) {
        sums[i] = InIntegers(View(blocks, shape), i % shape.outputs, input, i / shape.outputs);
      }
      return sums;
    }
    const LinearKernel& twin = Twin();
    const std::vector<float> values = Expand(blocks);
    const MatrixView view = {values.data(), DType::kFloat32, shape.outputs,
                             shape.blocks * BlockInputs()};
    const PackedWeight weight = PackWeight({&view, 1}, {twin.dtype, pool_, arena_, &twin});
    return Multiply(weight, TypedBuffer(twin.dtype, input.ToFloats()), shape.rows);
  }

  std::vector<float> Multiply(const PackedWeight& weight, const TypedBuffer& input, int64_t rows) {
    std::vector<float> output(rows * weight.view.outputs, kNan);
    Linear({.pool = &pool_},
           {.input = input.data(), .weight = weight.view, .output = output.data(), .rows = rows});
    return output;
  }

  ThreadPool pool_{2};
  WeightArena arena_;
};

// Kernels of integers; the others are as exact as their products of floats.
class QuantizedDotTest : public QuantizedLinearTest {};

void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& expected,
                    const Shape& shape) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(0, std::memcmp(&got[i], &expected[i], sizeof(float)))
        << shape.rows << "x" << shape.outputs << "x" << shape.blocks << " blocks, output "
        << i % shape.outputs << " of row " << i / shape.outputs << ": " << got[i] << " instead of "
        << expected[i];
  }
}

TEST_P(QuantizedLinearTest, HasTheBitsOfItsDefinition) {
  const Shape shapes[] = {{1, 1, 1},
                          {1, 33, 3},
                          {2, 31, 5},
                          {3, 300, 2},
                          {4, 64, 9},
                          {5, 65, 1},
                          {7, 160, 4},
                          {12, 97, 17},
                          {13, 30, 2},
                          {40, 70, 3},
                          {97, 33, 2},
                          {100, 600, 2},
                          {2, 1100, QuantLayoutOf(format()).chunks == 1 ? 37 : 5}};
  uint32_t seed = 1;
  for (const Shape& shape : shapes) {
    const std::vector<char> blocks =
        RandomQuantBlocks(format(), shape.outputs * shape.blocks, seed++);
    const TypedBuffer input(kernel().dtype,
                            RandomNormal(shape.rows * shape.blocks * BlockInputs(), seed++));
    const PackedWeight weight = Pack(blocks, shape);
    EXPECT_EQ(weight.view.format, format());
    EXPECT_EQ(weight.view.input_dtype, kernel().dtype);
    ExpectSameBits(Multiply(weight, input, shape.rows), Expected(blocks, input, shape), shape);
  }
}

TEST_P(QuantizedLinearTest, BitsDependOnTheRowAlone) {
  const Shape shape = {100, 210, QuantLayoutOf(format()).chunks == 1 ? 37 : 5};
  const int64_t inputs = shape.blocks * BlockInputs();
  const std::vector<char> blocks = RandomQuantBlocks(format(), shape.outputs * shape.blocks, 51);
  const TypedBuffer input(kernel().dtype, RandomNormal(shape.rows * inputs, 52));
  const PackedWeight weight = Pack(blocks, shape);
  const std::vector<float> whole = Multiply(weight, input, shape.rows);
  for (const int64_t rows : {1, 2, 3, 5, 8, 11, 12, 16, 64, 97}) {
    for (const int64_t first : {int64_t{0}, shape.rows - rows}) {
      const std::vector<float> part =
          Multiply(weight, input.Slice(first * inputs, rows * inputs), rows);
      EXPECT_EQ(0, std::memcmp(part.data(), whole.data() + first * shape.outputs,
                               part.size() * sizeof(float)))
          << rows << " rows from " << first;
    }
  }
}

TEST_P(QuantizedLinearTest, AddsBiasAndAccumulates) {
  const Shape shape = {97, 70, 2};
  const std::vector<char> blocks = RandomQuantBlocks(format(), shape.outputs * shape.blocks, 56);
  const PackedWeight weight = Pack(blocks, shape);
  const std::vector<float> bias = RandomNormal(shape.outputs, 57);
  const std::vector<float> before = RandomNormal(shape.rows * shape.outputs, 58);
  const TypedBuffer input(kernel().dtype,
                          RandomNormal(shape.rows * shape.blocks * BlockInputs(), 59));
  const std::vector<float> product = Multiply(weight, input, shape.rows);
  for (const int64_t rows : {1, 4, 5, 13, 97}) {
    std::vector<float> output(before.begin(), before.begin() + rows * shape.outputs);
    Linear({.pool = &pool_}, {.input = input.data(),
                              .weight = weight.view,
                              .bias = bias.data(),
                              .output = output.data(),
                              .accumulate = true,
                              .rows = rows});
    for (int64_t i = 0; i < rows * shape.outputs; ++i) {
      ASSERT_EQ(output[i], product[i] + bias[i % shape.outputs] + before[i]) << rows << ", " << i;
    }
  }
}

TEST_P(QuantizedLinearTest, StacksViewsAndWritesBesideOthers) {
  const Shape part = {3, 41, 2};
  const std::vector<char> first = RandomQuantBlocks(format(), part.outputs * part.blocks, 61);
  const std::vector<char> second = RandomQuantBlocks(format(), part.outputs * part.blocks, 62);
  std::vector<char> joined = first;
  joined.insert(joined.end(), second.begin(), second.end());
  const QuantMatrixView views[] = {View(first, part), View(second, part)};
  const PackedWeight stacked = PackWeight(views, {kernel().dtype, pool_, arena_, &kernel()});
  const Shape whole = {part.rows, 2 * part.outputs, part.blocks};
  const TypedBuffer input(kernel().dtype,
                          RandomNormal(part.rows * part.blocks * BlockInputs(), 63));
  const std::vector<float> expected = Multiply(Pack(joined, whole), input, part.rows);
  ExpectSameBits(Multiply(stacked, input, part.rows), expected, whole);

  // Each part into its columns of one output, with a something to accumulate there.
  std::vector<float> output(part.rows * (whole.outputs + 5), 0.5f);
  const PackedWeight parts[] = {Pack(first, part), Pack(second, part)};
  for (int i = 0; i < 2; ++i) {
    float* const to = output.data() + i * part.outputs;
    Linear({.pool = &pool_}, {.input = input.data(),
                              .weight = parts[i].view,
                              .output = to,
                              .accumulate = true,
                              .rows = part.rows,
                              .output_stride = whole.outputs + 5});
  }
  for (int64_t row = 0; row < part.rows; ++row) {
    for (int64_t n = 0; n < whole.outputs + 5; ++n) {
      const float product = n < whole.outputs ? expected[row * whole.outputs + n] : 0.0f;
      ASSERT_EQ(output[row * (whole.outputs + 5) + n], product + 0.5f) << row << ", " << n;
    }
  }
}

// Inputs lose at most half a unit of 2^-14 of their chunk's power of two, which is at most twice
// the largest of them; then come 3 roundings a chunk of what is there.
TEST_P(QuantizedDotTest, IsNearTheExactProduct) {
  const Shape shape = {5, 70, 6};
  const int64_t inputs = shape.blocks * BlockInputs();
  const std::vector<char> blocks = RandomQuantBlocks(format(), shape.outputs * shape.blocks, 71);
  const std::vector<float> values = Expand(blocks);
  std::vector<float> wide = RandomNormal(shape.rows * inputs, 72);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] *= std::ldexp(1.0f, i % 23 - 15);
  const TypedBuffer input(kernel().dtype, wide);
  const std::vector<float> got = Multiply(Pack(blocks, shape), input, shape.rows);
  for (int64_t i = 0; i < shape.rows * shape.outputs; ++i) {
    const int64_t x = i / shape.outputs * inputs;
    const int64_t w = i % shape.outputs * inputs;
    double sum = 0.0;
    double lost = 0.0;
    double magnitude = 0.0;
    for (int64_t begin = 0; begin < inputs; begin += kChunkInputs) {
      double largest = 0.0;
      double weights = 0.0;
      for (int64_t k = begin; k < begin + kChunkInputs; ++k) {
        sum += static_cast<double>(input.Get(x + k)) * values[w + k];
        largest = std::max(largest, std::abs(static_cast<double>(input.Get(x + k))));
        weights += std::abs(values[w + k]);
      }
      lost += 2.0 * largest * 0x1p-15 * weights;
      // Codes and shifts are added apart; of random codes neither is 31 times what both are.
      magnitude += 64.0 * largest * weights;
    }
    const double chunks = static_cast<double>(inputs) / kChunkInputs;
    EXPECT_NEAR(got[i], sum, lost + 4.0 * chunks * 0x1p-24 * magnitude) << i;
  }
}

TEST_P(QuantizedDotTest, OnlyItsOwnChunkMakesARowNan) {
  const Shape shape = {3, 33, QuantLayoutOf(format()).chunks == 1 ? 9 : 2};
  const int64_t inputs = shape.blocks * BlockInputs();
  const std::vector<char> blocks = RandomQuantBlocks(format(), shape.outputs * shape.blocks, 75);
  for (const float poison : {kNan, std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = RandomNormal(shape.rows * inputs, 76);
    values[inputs + 40] = poison;
    const TypedBuffer input(kernel().dtype, values);
    const std::vector<float> got = Multiply(Pack(blocks, shape), input, shape.rows);
    for (int64_t i = 0; i < shape.rows * shape.outputs; ++i) {
      EXPECT_EQ(std::isnan(got[i]), i / shape.outputs == 1) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, QuantizedDotTest,
                         testing::Combine(testing::ValuesIn(DotKernelsUnderTest()),
                                          testing::ValuesIn(kQuantFormats)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Kernels, QuantizedLinearTest,
                         testing::Combine(testing::ValuesIn(QuantizedKernelsUnderTest()),
                                          testing::ValuesIn(kQuantFormats)),
                         NameOf);

// Every code of every format, at scales that are normal, subnormal, zero, infinite and NaN.
TEST_P(QuantizedLinearTest, ExpandsEveryScaleLikeTheReference) {
  const uint16_t halves[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00,
                             0xbc01, 0x7bff, 0x7c00, 0xfc00, 0x7e01, 0xfdff};
  const Shape shape = {1, 64, 1};
  for (const uint16_t half : halves) {
    std::vector<char> blocks = RandomQuantBlocks(format(), shape.outputs, half);
    for (int64_t n = 0; n < shape.outputs; ++n) {
      char* const at = blocks.data() + n * QuantLayoutOf(format()).bytes;
      std::memcpy(format() == QuantFormat::kQ6_K ? at + 208 : at, &half, sizeof(half));
    }
    for (const int64_t k : {int64_t{0}, BlockInputs() - 1}) {
      std::vector<float> one(BlockInputs(), 0.0f);
      one[k] = 1.0f;
      const TypedBuffer input(kernel().dtype, one);
      const std::vector<float> got = Multiply(Pack(blocks, shape), input, 1);
      const std::vector<float> expected = Expected(blocks, input, shape);
      for (int64_t n = 0; n < shape.outputs; ++n) {
        const bool same = std::isnan(expected[n]) ? std::isnan(got[n]) : got[n] == expected[n];
        EXPECT_TRUE(same) << "half " << half << ", input " << k << ": " << got[n] << " instead of "
                          << expected[n];
      }
    }
  }
}

// Rows of the input lie `columns` apart, though blocks are longer.
TEST(QuantizeRowsTest, MultipliesRowsThatEndWithinABlock) {
  ThreadPool pool(2);
  WeightArena arena;
  const int64_t outputs = 40;
  const int64_t columns = 75;
  for (const LinearKernel* kernel : QuantizedKernelsUnderTest()) {
    const TypedBuffer values(DType::kFloat32, RandomNormal(outputs * columns, 81));
    const QuantMatrix matrix =
        QuantizeRows({values.data(), DType::kFloat32, outputs, columns}, pool);
    const PackTarget target = {kernel->dtype, pool, arena, kernel};
    const PackedWeight weight = PackWeight({&matrix.view, 1}, target);
    for (const int64_t rows : {1, 3, 9}) {
      const TypedBuffer input(kernel->dtype, RandomNormal(rows * columns, 82));
      std::vector<float> output(rows * outputs, kNan);
      Linear({.pool = &pool},
             {.input = input.data(), .weight = weight.view, .output = output.data(), .rows = rows});
      for (int64_t m = 0; m < rows; ++m) {
        for (int64_t n = 0; n < outputs; ++n) {
          double sum = 0.0;
          double magnitude = 0.0;
          for (int64_t k = 0; k < columns; ++k) {
            const double x = input.Get(m * columns + k);
            sum += x * values.Get(n * columns + k);
            magnitude += std::abs(x);
          }
          // Values of a block are within 5 and their codes within half a step of 5 / 127.
          EXPECT_NEAR(output[m * outputs + n], sum, magnitude * (5.0 / 127.0));
        }
      }
    }
  }
}

TEST(QuantizeRowsTest, RoundsToTheNearestMultipleOfTheScale) {
  ThreadPool pool(2);
  const int64_t rows = 5;
  const int64_t columns = 75;  // The last block has 21 values that are not there.
  for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16}) {
    const TypedBuffer values(dtype, RandomNormal(rows * columns, 71));
    const QuantMatrix matrix = QuantizeRows({values.data(), dtype, rows, columns}, pool);
    ASSERT_EQ(matrix.view.columns, columns);
    ASSERT_EQ(matrix.view.row_quant_blocks(), 3);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t begin = 0; begin < 96; begin += 32) {
        float got[32];
        Dequantize(QuantFormat::kQ8_0, matrix.owned.get() + (row * 3 + begin / 32) * 34, 1, got);
        float largest = 0.0f;
        for (int64_t k = begin; k < std::min(begin + 32, columns); ++k) {
          largest = std::max(largest, std::abs(values.Get(row * columns + k)));
        }
        // Half a step, and what rounding the step to a half takes from the largest value.
        const double bound = largest / 127.0 * (0.5 + 127.0 * 0x1p-11) * 1.01;
        for (int64_t k = begin; k < begin + 32; ++k) {
          const float exact = k < columns ? values.Get(row * columns + k) : 0.0f;
          EXPECT_LE(std::abs(got[k - begin] - exact), k < columns ? bound : 0.0)
              << row << ", " << k;
        }
      }
    }
  }
}

TEST(QuantizeRowsTest, SpoiledAndTinyBlocksStayWhatTheyAre) {
  float values[32] = {};
  char block[34];
  float got[32];
  QuantizeQ8_0(values, block);
  Dequantize(QuantFormat::kQ8_0, block, 1, got);
  for (const float value : got) EXPECT_EQ(value, 0.0f);
  values[3] = 1e-9f;  // Its step is no half but 0.
  QuantizeQ8_0(values, block);
  Dequantize(QuantFormat::kQ8_0, block, 1, got);
  for (const float value : got) EXPECT_EQ(value, 0.0f);
  values[3] = std::numeric_limits<float>::infinity();
  QuantizeQ8_0(values, block);
  Dequantize(QuantFormat::kQ8_0, block, 1, got);
  for (const float value : got) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace structattn::linear
