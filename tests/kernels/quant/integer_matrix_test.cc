// Codes in every order against a plain table of them, values against the formula, and quant blocks
// against the values, bit for bit.
#include "kernels/quant/integer_matrix.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "kernels/dtype.h"

namespace structattn {
namespace {

// A matrix in one order, and what it holds.
struct Sample {
  std::vector<uint8_t> memory;
  std::vector<int> codes;  // [outputs][inputs]
  IntegerMatrix matrix;

  int64_t outputs() const { return matrix.codes.outputs; }
  int64_t inputs() const { return matrix.codes.inputs; }
};

struct Shape {
  CodeOrder order;
  int bits;
  int64_t outputs;
  int64_t inputs;
  int64_t inputs_per_scale;
};

// Byte and shift of a code, written down once more and by another way than the reader's.
std::pair<int64_t, int> PlaceOf(const Shape& shape, int64_t output, int64_t input) {
  const int64_t per_word = 32 / shape.bits;
  int64_t bit = 0;
  switch (shape.order) {
    case CodeOrder::kWordsOfInputs:
      bit = (input / per_word * shape.outputs + output) * 32 + input % per_word * shape.bits;
      break;
    case CodeOrder::kWordsOfOutputs: {
      // Of outputs 0 to 7, the even ones come first.
      const int64_t place = output % 2 == 0 ? output % 8 / 2 : 4 + output % 8 / 2;
      bit = (input * shape.outputs / 8 + output / 8) * 32 + place * 4;
      break;
    }
    case CodeOrder::kRows:
      bit = output * ((shape.inputs + per_word - 1) / per_word * 32) + input * shape.bits;
      break;
  }
  return {bit / 8, static_cast<int>(bit % 8)};
}

Sample MakeSample(const Shape& shape, int zero) {
  std::mt19937 random(7);
  Sample sample;
  const int64_t quant_blocks = shape.inputs / shape.inputs_per_scale;
  sample.memory.resize(static_cast<size_t>(shape.outputs * (shape.inputs + 32)));
  for (int64_t output = 0; output < shape.outputs; ++output) {
    for (int64_t input = 0; input < shape.inputs; ++input) {
      const int code = static_cast<int>(random() & ((1u << shape.bits) - 1));
      sample.codes.push_back(code);
      const auto [byte, shift] = PlaceOf(shape, output, input);
      sample.memory[byte] |= static_cast<uint8_t>(code << shift);
    }
  }
  for (int64_t i = 0; i < quant_blocks * shape.outputs; ++i) {
    const float scale = static_cast<float>(random() % 1000) * 1e-4f + 1e-3f;
    sample.matrix.scales.push_back(ToFloat(FromFloat<Float16>(scale)));
    sample.matrix.zeros.push_back(
        static_cast<uint8_t>(zero >= 0 ? zero : random() % (1u << shape.bits)));
  }
  for (int64_t input = 0; input < shape.inputs; ++input) {
    sample.matrix.quant_block_of.push_back(static_cast<int32_t>(input / shape.inputs_per_scale));
  }
  const int64_t per_word = 32 / shape.bits;
  sample.matrix.codes = {.data = sample.memory.data(),
                         .order = shape.order,
                         .bits = shape.bits,
                         .row_bytes = (shape.inputs + per_word - 1) / per_word * 4,
                         .outputs = shape.outputs,
                         .inputs = shape.inputs};
  return sample;
}

std::vector<float> Expanded(const Sample& sample) {
  std::vector<float> values(static_cast<size_t>(sample.outputs() * sample.inputs()), NAN);
  for (int64_t output = 0; output < sample.outputs(); ++output) {
    sample.matrix.ExpandRow(output, values.data() + output * sample.inputs());
  }
  return values;
}

// Every row's quant blocks, dequantized; what is past a row's end must be 0.
void ExpectHolds(const Sample& sample, QuantFormat format) {
  ThreadPool pool(2);
  const QuantMatrix held = Requantize(sample.matrix, format, pool);
  const std::vector<float> values = Expanded(sample);
  const int64_t quant_blocks = held.view.row_quant_blocks();
  std::vector<float> row(static_cast<size_t>(quant_blocks * kChunkInputs));
  for (int64_t output = 0; output < sample.outputs(); ++output) {
    Dequantize(format,
               static_cast<const std::byte*>(held.view.data) + output * held.view.row_bytes(),
               quant_blocks, row.data());
    for (int64_t input = 0; input < static_cast<int64_t>(row.size()); ++input) {
      const float value = input < sample.inputs() ? values[output * sample.inputs() + input] : 0.0f;
      ASSERT_EQ(std::bit_cast<uint32_t>(row[input]), std::bit_cast<uint32_t>(value))
          << Name(format) << " [" << output << ", " << input << "]";
    }
  }
}

constexpr Shape kShapes[] = {
    {CodeOrder::kWordsOfInputs, 4, 24, 128, 32},
    {CodeOrder::kWordsOfInputs, 8, 12, 96, 96},
    {CodeOrder::kWordsOfOutputs, 4, 16, 192, 64},
    {CodeOrder::kWordsOfOutputs, 4, 8, 40, 40},
    {CodeOrder::kRows, 4, 7, 77, 77},
    {CodeOrder::kRows, 8, 5, 37, 37},
    {CodeOrder::kRows, 4, 9, 256, 128},
};

TEST(IntegerMatrixTest, ValuesAreScaleTimesCodeLessZero) {
  for (const Shape& shape : kShapes) {
    const Sample sample = MakeSample(shape, -1);
    const std::vector<float> values = Expanded(sample);
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t output = i / shape.inputs;
      const size_t at = i % shape.inputs / shape.inputs_per_scale * shape.outputs + output;
      const double value = static_cast<double>(sample.matrix.scales[at]) *
                           (sample.codes[i] - static_cast<int>(sample.matrix.zeros[at]));
      ASSERT_EQ(static_cast<double>(values[i]), value) << i;  // Exact: 11 bits times 9.
    }
  }
}

TEST(IntegerMatrixTest, QuantBlocksHaveTheSameValues) {
  for (const Shape& shape : kShapes) {
    const Sample symmetric = MakeSample(shape, shape.bits == 4 ? 8 : 128);
    ASSERT_EQ(symmetric.matrix.HeldAs(), shape.bits == 4 ? QuantFormat::kQ4_0 : QuantFormat::kQ8_0);
    ExpectHolds(symmetric, *symmetric.matrix.HeldAs());
    if (shape.bits == 8) continue;
    const Sample asymmetric = MakeSample(shape, -1);
    ASSERT_EQ(asymmetric.matrix.HeldAs(), QuantFormat::kQ5_0);
    ExpectHolds(asymmetric, QuantFormat::kQ5_0);
  }
}

TEST(IntegerMatrixTest, SignedCodesCountFromTheirLeast) {
  Sample sample = MakeSample({CodeOrder::kRows, 8, 3, 64, 64}, 128);
  sample.matrix.codes.is_signed = true;
  for (uint8_t& byte : sample.memory) byte ^= 128;
  const std::vector<float> values = Expanded(sample);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(values[i], sample.matrix.scales[i / 64] * static_cast<float>(sample.codes[i] - 128));
  }
  ExpectHolds(sample, QuantFormat::kQ8_0);
}

TEST(IntegerMatrixTest, HoldsNothingThatIsNotExact) {
  const Shape shape = {CodeOrder::kRows, 4, 4, 128, 32};
  for (const float scale : {0.1f, 1e6f, 1e-9f, std::numeric_limits<float>::infinity(), NAN}) {
    Sample sample = MakeSample(shape, 8);
    sample.matrix.scales.back() = scale;
    EXPECT_FALSE(sample.matrix.HeldAs().has_value()) << scale;
  }
  Sample mixed = MakeSample(shape, 8);
  mixed.matrix.quant_block_of[33] = 0;
  EXPECT_FALSE(mixed.matrix.HeldAs().has_value()) << "inputs of a chunk have several scales";
  Sample wide = MakeSample({CodeOrder::kRows, 8, 4, 128, 32}, 128);
  wide.matrix.zeros.front() = 127;
  EXPECT_FALSE(wide.matrix.HeldAs().has_value()) << "a difference of 128";
  Sample swapped = MakeSample(shape, 8);
  for (int i = 0; i < 32; ++i)
    std::swap(swapped.matrix.quant_block_of[i], swapped.matrix.quant_block_of[i + 64]);
  EXPECT_EQ(swapped.matrix.HeldAs(), QuantFormat::kQ4_0) << "chunks may be in any order";
  ExpectHolds(swapped, QuantFormat::kQ4_0);
}

}  // namespace
}  // namespace structattn
