// How GGML's blocks (ggml-common.h) hold codes and scales, taken apart without arithmetic; and the
// rounding to Q8_0. See quant_format.h.
#include "kernels/quant/quant_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace structattn {
namespace {

constexpr int64_t kQ8Bytes = QuantBlockBytes(QuantFormat::kQ8_0);
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
void ReadSixBitScales(const uint8_t* packed, QuantBlockParts& parts) {
  for (int c = 0; c < 4; ++c) {
    parts.strip_scales[c] = packed[c] & 63;
    parts.minima[c] = packed[c + 4] & 63;
    parts.strip_scales[c + 4] = (packed[c + 8] & 15) | ((packed[c] >> 2) & 48);
    parts.minima[c + 4] = (packed[c + 8] >> 4) | ((packed[c + 4] >> 2) & 48);
  }
}

// Q4_K and Q5_K: 32 bytes of nibbles hold two chunks, the low ones first.
void ReadChunkNibbles(const uint8_t* nibbles, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) {
    const int chunk = i / 32;
    codes[i] = (nibbles[chunk / 2 * 32 + i % 32] >> (chunk % 2 * 4)) & 15;
  }
}

void ReadQ5_K(const uint8_t* block, QuantBlockParts& parts) {
  ReadSixBitScales(block + 4, parts);
  ReadChunkNibbles(block + 48, parts.codes);
  const uint8_t* fifth = block + 16;
  for (int i = 0; i < 256; ++i) parts.codes[i] |= ((fifth[i % 32] >> (i / 32)) & 1) << 4;
}

// Two halves of four chunks: 64 bytes of nibbles, the low ones of them chunks 0 and 1, and 32 bytes
// of two upper bits for each chunk.
void ReadQ6_K(const uint8_t* block, QuantBlockParts& parts) {
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int chunk = i / 32 % 4;
    const uint8_t low = block[half * 64 + chunk % 2 * 32 + i % 32] >> (chunk / 2 * 4);
    const uint8_t upper = block[128 + half * 32 + i % 32] >> (2 * chunk);
    parts.codes[i] = (low & 15) | ((upper & 3) << 4);
  }
  std::memcpy(parts.strip_scales, block + 192, 16);
  parts.scale = HalfBits(block + 208);
}

template <typename T>
void Widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}

void Widen(const std::byte* row, DType dtype, int64_t count, float* to) {
  switch (dtype) {
    case DType::kFloat32:
      return Widen(reinterpret_cast<const float*>(row), count, to);
    case DType::kBfloat16:
      return Widen(reinterpret_cast<const Bfloat16*>(row), count, to);
    case DType::kFloat16:
      return Widen(reinterpret_cast<const Float16*>(row), count, to);
  }
}

}  // namespace

QuantBlockParts ReadQuantBlock(QuantFormat format, const void* stored) {
  const auto* block = static_cast<const uint8_t*>(stored);
  QuantBlockParts parts = {};
  parts.scale = HalfBits(block);
  if (QuantLayoutOf(format).has_shift) parts.shift = HalfBits(block + 2);
  switch (format) {
    case QuantFormat::kQ4_0:
      ReadNibbles(block + 2, parts.codes);
      break;
    case QuantFormat::kQ4_1:
      ReadNibbles(block + 4, parts.codes);
      break;
    case QuantFormat::kQ5_0:
      ReadNibbles(block + 6, parts.codes);
      AddFifthBits(block + 2, parts.codes);
      break;
    case QuantFormat::kQ5_1:
      ReadNibbles(block + 8, parts.codes);
      AddFifthBits(block + 4, parts.codes);
      break;
    case QuantFormat::kQ8_0:
      std::memcpy(parts.codes, block + 2, 32);
      break;
    case QuantFormat::kQ4_K:
      ReadSixBitScales(block + 4, parts);
      ReadChunkNibbles(block + 16, parts.codes);
      break;
    case QuantFormat::kQ5_K:
      ReadQ5_K(block, parts);
      break;
    case QuantFormat::kQ6_K:
      ReadQ6_K(block, parts);
      break;
  }
  return parts;
}

void DequantizeBlock(QuantFormat format, const void* block, float* values) {
  const QuantBlockLayout layout = QuantLayoutOf(format);
  const QuantBlockParts parts = ReadQuantBlock(format, block);
  const float d = ToFloat(Float16{parts.scale});
  const float m = ToFloat(Float16{parts.shift});
  const int strip_inputs = kChunkInputs / layout.strips_per_chunk;
  const bool is_signed = format == QuantFormat::kQ8_0 || format == QuantFormat::kQ6_K;
  const auto number = [is_signed](uint8_t byte) {
    return is_signed ? static_cast<int>(static_cast<int8_t>(byte)) : static_cast<int>(byte);
  };
  for (int i = 0; i < layout.inputs(); ++i) {
    float scale = d;
    float shift = m;
    if (layout.has_strip_scales()) {
      scale = d * static_cast<float>(number(parts.strip_scales[i / strip_inputs]));
      shift = -(m * static_cast<float>(parts.minima[i / kChunkInputs]));
    }
    const float value = scale * static_cast<float>(number(parts.codes[i]) - layout.offset);
    values[i] = layout.has_shift ? value + shift : value;
  }
}

void QuantizeQ8_0(const float* values, void* block) {
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
  std::memcpy(block, bytes, kQ8Bytes);
}

QuantMatrix QuantizeRows(const MatrixView& matrix, ThreadPool& pool) {
  const auto value_bytes = static_cast<int64_t>(ByteSize(matrix.dtype));
  QuantMatrix quantized;
  quantized.view = {nullptr, QuantFormat::kQ8_0, matrix.rows, matrix.columns};
  const int64_t blocks = quantized.view.row_quant_blocks();
  quantized.owned = std::make_unique_for_overwrite<std::byte[]>(matrix.rows * blocks * kQ8Bytes);
  quantized.view.data = quantized.owned.get();
  pool.ParallelFor(matrix.rows, [&](int64_t row) {
    const auto* from =
        static_cast<const std::byte*>(matrix.data) + row * matrix.columns * value_bytes;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * kChunkInputs;
      float values[kChunkInputs] = {};
      Widen(from + begin * value_bytes, matrix.dtype,
            std::min<int64_t>(kChunkInputs, matrix.columns - begin), values);
      QuantizeQ8_0(values, quantized.owned.get() + (row * blocks + block) * kQ8Bytes);
    }
  });
  return quantized;
}

}  // namespace structattn
