// How GGML's quant blocks (ggml-common.h) hold codes and scales, which are taken apart without
// arithmetic; their values; and the rounding to Q8_0. See quant_format.h.
#include "kernels/quant/quant_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"

namespace structattn {
namespace {

constexpr int64_t kQ8Bytes = QuantLayoutOf(QuantFormat::kQ8_0).bytes;
constexpr uint16_t kHalfNan = 0x7e00;
constexpr float kMostHalf = 65504.0f;

uint16_t HalfBits(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

// The low nibbles are codes 0..15, the high ones 16..31.
void ReadNibbles(const uint8_t* nibbles, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = nibbles[i] & 15;
    codes[i + 16] = nibbles[i] >> 4;
  }
}

// Bit i of a 32-bit word is the fifth bit of code i.
void AddFifthBits(const uint8_t* word_bytes, uint8_t* codes) {
  uint32_t word;
  std::memcpy(&word, word_bytes, sizeof(word));
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((word >> i) & 1u) << 4);
}

// Q4_K and Q5_K: six bits each of eight scales and minima in twelve bytes. Chunk c < 4 has them in
// the low six bits of bytes c and c + 4; chunk c >= 4 has four bits of both in byte c + 4 and two
// more in the top bits of bytes c - 4 and c.
void ReadSixBitScales(const uint8_t* packed, UnpackedQuantBlock& unpacked) {
  for (int c = 0; c < 4; ++c) {
    unpacked.strip_scales[c] = packed[c] & 63;
    unpacked.minima[c] = packed[c + 4] & 63;
    unpacked.strip_scales[c + 4] = (packed[c + 8] & 15) | ((packed[c] >> 2) & 48);
    unpacked.minima[c + 4] = (packed[c + 8] >> 4) | ((packed[c + 4] >> 2) & 48);
  }
}

// Q4_K and Q5_K: 32 bytes of nibbles hold two chunks, the low ones first.
void ReadChunkNibbles(const uint8_t* nibbles, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) {
    const int chunk = i / 32;
    codes[i] = (nibbles[chunk / 2 * 32 + i % 32] >> (chunk % 2 * 4)) & 15;
  }
}

void ReadQ5_K(const uint8_t* bytes, UnpackedQuantBlock& unpacked) {
  ReadSixBitScales(bytes + 4, unpacked);
  ReadChunkNibbles(bytes + 48, unpacked.codes);
  const uint8_t* fifth = bytes + 16;
  for (int i = 0; i < 256; ++i) unpacked.codes[i] |= ((fifth[i % 32] >> (i / 32)) & 1) << 4;
}

// Two halves of four chunks: 64 bytes of nibbles, the low ones of them chunks 0 and 1, and 32 bytes
// of two upper bits for each chunk.
void ReadQ6_K(const uint8_t* bytes, UnpackedQuantBlock& unpacked) {
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int chunk = i / 32 % 4;
    const uint8_t low = bytes[half * 64 + chunk % 2 * 32 + i % 32] >> (chunk / 2 * 4);
    const uint8_t upper = bytes[128 + half * 32 + i % 32] >> (2 * chunk);
    unpacked.codes[i] = (low & 15) | ((upper & 3) << 4);
  }
  std::memcpy(unpacked.strip_scales, bytes + 192, 16);
  unpacked.scale = HalfBits(bytes + 208);
}

// The other way around.
void WriteNibbles(const uint8_t* codes, uint8_t* nibbles) {
  for (int i = 0; i < 16; ++i) {
    nibbles[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  }
}

void WriteFifthBits(const uint8_t* codes, uint8_t* word_bytes) {
  uint32_t word = 0;
  for (int i = 0; i < 32; ++i) word |= ((codes[i] >> 4) & 1u) << i;
  std::memcpy(word_bytes, &word, sizeof(word));
}

void WriteQ6_K(const UnpackedQuantBlock& unpacked, uint8_t* bytes) {
  std::memset(bytes, 0, 192);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int chunk = i / 32 % 4;
    const int code = unpacked.codes[i];
    bytes[half * 64 + chunk % 2 * 32 + i % 32] |=
        static_cast<uint8_t>((code & 15) << (chunk / 2 * 4));
    bytes[128 + half * 32 + i % 32] |= static_cast<uint8_t>((code >> 4) << (2 * chunk));
  }
  std::memcpy(bytes + 192, unpacked.strip_scales, 16);
  std::memcpy(bytes + 208, &unpacked.scale, sizeof(unpacked.scale));
}

}  // namespace

UnpackedQuantBlock ReadQuantBlock(QuantFormat format, const void* quant_block) {
  const auto* bytes = static_cast<const uint8_t*>(quant_block);
  UnpackedQuantBlock unpacked = {};
  unpacked.scale = HalfBits(bytes);
  if (QuantLayoutOf(format).has_shift) unpacked.shift = HalfBits(bytes + 2);
  switch (format) {
    case QuantFormat::kQ4_0:
      ReadNibbles(bytes + 2, unpacked.codes);
      break;
    case QuantFormat::kQ4_1:
      ReadNibbles(bytes + 4, unpacked.codes);
      break;
    case QuantFormat::kQ5_0:
      ReadNibbles(bytes + 6, unpacked.codes);
      AddFifthBits(bytes + 2, unpacked.codes);
      break;
    case QuantFormat::kQ5_1:
      ReadNibbles(bytes + 8, unpacked.codes);
      AddFifthBits(bytes + 4, unpacked.codes);
      break;
    case QuantFormat::kQ8_0:
      std::memcpy(unpacked.codes, bytes + 2, 32);
      break;
    case QuantFormat::kQ4_K:
      ReadSixBitScales(bytes + 4, unpacked);
      ReadChunkNibbles(bytes + 16, unpacked.codes);
      break;
    case QuantFormat::kQ5_K:
      ReadQ5_K(bytes, unpacked);
      break;
    case QuantFormat::kQ6_K:
      ReadQ6_K(bytes, unpacked);
      break;
  }
  return unpacked;
}

void WriteQuantBlock(QuantFormat format, const UnpackedQuantBlock& unpacked, void* quant_block) {
  auto* bytes = static_cast<uint8_t*>(quant_block);
  if (format == QuantFormat::kQ6_K) return WriteQ6_K(unpacked, bytes);
  std::memcpy(bytes, &unpacked.scale, sizeof(unpacked.scale));
  switch (format) {
    case QuantFormat::kQ4_0:
      return WriteNibbles(unpacked.codes, bytes + 2);
    case QuantFormat::kQ5_0:
      WriteFifthBits(unpacked.codes, bytes + 2);
      return WriteNibbles(unpacked.codes, bytes + 6);
    case QuantFormat::kQ8_0:
      std::memcpy(bytes + 2, unpacked.codes, 32);
      return;
    default:
      STRUCTATTN_CHECK(false);
  }
}

void Dequantize(QuantFormat format, const void* quant_blocks, int64_t count, float* values) {
  const QuantBlockLayout& layout = QuantLayoutOf(format);
  const int strip_inputs = kChunkInputs / layout.strips_per_chunk;
  const bool is_signed = format == QuantFormat::kQ8_0 || format == QuantFormat::kQ6_K;
  const auto number = [is_signed](uint8_t byte) {
    return is_signed ? static_cast<int>(static_cast<int8_t>(byte)) : static_cast<int>(byte);
  };
  const auto* from = static_cast<const uint8_t*>(quant_blocks);
  for (int64_t i = 0; i < count; ++i, from += layout.bytes, values += layout.inputs()) {
    const UnpackedQuantBlock unpacked = ReadQuantBlock(format, from);
    const float d = ToFloat(Float16{unpacked.scale});
    const float m = ToFloat(Float16{unpacked.shift});
    for (int k = 0; k < layout.inputs(); ++k) {
      float scale = d;
      float shift = m;
      if (layout.has_strip_scales()) {
        const int chunk = k / kChunkInputs;
        scale = d * static_cast<float>(number(unpacked.strip_scales[k / strip_inputs]));
        shift = -(m * static_cast<float>(unpacked.minima[chunk]));
      }
      const float value = scale * static_cast<float>(number(unpacked.codes[k]) - layout.offset);
      values[k] = layout.has_shift ? value + shift : value;
    }
  }
}

void QuantizeQ8_0(const float* values, void* quant_block) {
  float largest = 0.0f;
  bool finite = true;
  for (int i = 0; i < kChunkInputs; ++i) {
    finite = finite && std::isfinite(values[i]);
    largest = std::max(largest, std::abs(values[i]));
  }
  uint8_t bytes[kQ8Bytes] = {};
  const Float16 scale =
      finite ? FromFloat<Float16>(std::min(largest / 127.0f, kMostHalf)) : Float16{kHalfNan};
  std::memcpy(bytes, &scale.bits, sizeof(scale.bits));
  const float step = ToFloat(scale);
  for (int i = 0; i < kChunkInputs && step > 0.0f; ++i) {
    // Adding and taking away 1.5 x 2^23 leaves no bit below the point.
    const float code = (values[i] / step + 0x1.8p23f) - 0x1.8p23f;
    bytes[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f)));
  }
  std::memcpy(quant_block, bytes, kQ8Bytes);
}

QuantMatrix QuantizeRows(const MatrixView& matrix, ThreadPool& pool) {
  QuantMatrix quantized;
  quantized.view = {nullptr, QuantFormat::kQ8_0, matrix.rows, matrix.columns};
  const int64_t row_bytes = quantized.view.row_bytes();
  quantized.owned = std::make_unique_for_overwrite<std::byte[]>(matrix.rows * row_bytes);
  quantized.view.data = quantized.owned.get();
  pool.ParallelFor(matrix.rows, [&](int64_t row) {
    std::byte* to = quantized.owned.get() + row * row_bytes;
    for (int64_t begin = 0; begin < matrix.columns; begin += kChunkInputs, to += kQ8Bytes) {
      float values[kChunkInputs] = {};
      matrix.ReadRow(row, begin, std::min<int64_t>(kChunkInputs, matrix.columns - begin), values);
      QuantizeQ8_0(values, to);
    }
  });
  return quantized;
}

}  // namespace structattn
