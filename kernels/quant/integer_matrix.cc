// Codes out of their words, values, and quant blocks of the same values. See integer_matrix.h.
#include "kernels/quant/integer_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/dtype.h"

namespace structattn {
namespace {

uint32_t WordAt(const uint8_t* data, int64_t index) {
  uint32_t word;
  std::memcpy(&word, data + index * 4, sizeof(word));
  return word;
}

// The codes of one output, [inputs].
void ReadWordsOfInputs(const CodeMatrix& codes, int64_t output, uint8_t* to) {
  const int64_t per_word = 32 / codes.bits;
  const uint32_t mask = (1u << codes.bits) - 1;
  for (int64_t input = 0; input < codes.inputs; input += per_word) {
    uint32_t word = WordAt(codes.data, input / per_word * codes.outputs + output);
    for (int64_t i = 0; i < per_word; ++i, word >>= codes.bits) {
      to[input + i] = static_cast<uint8_t>(word & mask);
    }
  }
}

void ReadWordsOfOutputs(const CodeMatrix& codes, int64_t output, uint8_t* to) {
  constexpr int kPlaceOfOutput[] = {0, 4, 1, 5, 2, 6, 3, 7};
  const int shift = 4 * kPlaceOfOutput[output % 8];
  for (int64_t input = 0; input < codes.inputs; ++input) {
    const uint32_t word = WordAt(codes.data, input * (codes.outputs / 8) + output / 8);
    to[input] = static_cast<uint8_t>((word >> shift) & 15);
  }
}

void ReadRow(const CodeMatrix& codes, int64_t output, uint8_t* to) {
  const uint8_t* row = codes.data + output * codes.row_bytes;
  const uint8_t flip = codes.is_signed ? 128 : 0;
  for (int64_t input = 0; input < codes.inputs; ++input) {
    to[input] = codes.bits == 8 ? row[input] ^ flip : (row[input / 2] >> (input % 2 * 4)) & 15;
  }
}

void ReadCodes(const CodeMatrix& codes, int64_t output, uint8_t* to) {
  switch (codes.order) {
    case CodeOrder::kWordsOfInputs:
      return ReadWordsOfInputs(codes, output, to);
    case CodeOrder::kWordsOfOutputs:
      return ReadWordsOfOutputs(codes, output, to);
    case CodeOrder::kRows:
      return ReadRow(codes, output, to);
  }
}

// What a code of a format stands for is code - offset; those of Q8_0 are signed.
int OffsetOf(QuantFormat format) { return QuantLayoutOf(format).offset; }

struct Differences {
  int least;
  int most;
};

bool Holds(QuantFormat format, const Differences& differences) {
  const int half = 1 << (QuantLayoutOf(format).code_bits - 1);
  return -half <= differences.least && differences.most < half;
}

bool IsFiniteHalf(float value) {
  return std::isfinite(value) && ToFloat(FromFloat<Float16>(value)) == value;
}

}  // namespace

void IntegerMatrix::ExpandRow(int64_t output, float* values) const {
  const auto row_codes = std::make_unique_for_overwrite<uint8_t[]>(codes.inputs);
  ReadCodes(codes, output, row_codes.get());
  for (int64_t input = 0; input < codes.inputs; ++input) {
    const int64_t at = quant_block_of[input] * codes.outputs + output;
    values[input] = scales[at] * static_cast<float>(row_codes[input] - zeros[at]);
  }
}

std::optional<QuantFormat> IntegerMatrix::HeldAs() const {
  for (int64_t input = 0; input < codes.inputs; ++input) {
    if (quant_block_of[input] != quant_block_of[input / kChunkInputs * kChunkInputs]) {
      return std::nullopt;
    }
  }
  if (!std::all_of(scales.begin(), scales.end(), IsFiniteHalf)) return std::nullopt;
  const auto [least, most] = std::minmax_element(zeros.begin(), zeros.end());
  const Differences differences = {-*most, (1 << codes.bits) - 1 - *least};
  for (const QuantFormat format : {QuantFormat::kQ4_0, QuantFormat::kQ5_0, QuantFormat::kQ8_0}) {
    if (Holds(format, differences)) return format;
  }
  return std::nullopt;
}

QuantMatrix Requantize(const IntegerMatrix& matrix, QuantFormat format, ThreadPool& pool) {
  const auto& [codes, quant_block_of, scales, zeros] = matrix;
  QuantMatrix quantized;
  quantized.view = {nullptr, format, codes.outputs, codes.inputs};
  const int64_t row_bytes = quantized.view.row_bytes();
  quantized.owned = std::make_unique_for_overwrite<std::byte[]>(codes.outputs * row_bytes);
  quantized.view.data = quantized.owned.get();
  pool.ParallelFor(codes.outputs, [&](int64_t output) {
    const auto row_codes = std::make_unique_for_overwrite<uint8_t[]>(codes.inputs);
    ReadCodes(codes, output, row_codes.get());
    std::byte* to = quantized.owned.get() + output * row_bytes;
    for (int64_t begin = 0; begin < codes.inputs; begin += kChunkInputs) {
      const int64_t at = quant_block_of[begin] * codes.outputs + output;
      UnpackedQuantBlock unpacked = {};
      unpacked.scale = FromFloat<Float16>(scales[at]).bits;
      for (int64_t i = 0; i < kChunkInputs; ++i) {
        const bool missing = begin + i >= codes.inputs;
        const int difference = missing ? 0 : row_codes[begin + i] - zeros[at];
        unpacked.codes[i] = static_cast<uint8_t>(difference + OffsetOf(format));
      }
      WriteQuantBlock(format, unpacked, to);
      to += QuantLayoutOf(format).bytes;
    }
  });
  return quantized;
}

}  // namespace structattn
