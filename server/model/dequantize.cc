// The block formats of GGML (ggml-common.h) and their formulae (gguf-py's quants.py), expanded to
// float: see dequantize.h. Every value is one product, or one product and one sum, rounded in the
// order of the reference; contraction would change the bits.
#include "server/model/dequantize.h"

#include <array>
#include <cstring>

#include "kernels/check.h"

namespace structattn {
namespace {

enum GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

constexpr GgmlEncoding kEncodings[] = {
    {kF32, "F32", 1, 4, DType::kFloat32},    {kF16, "F16", 1, 2, DType::kFloat16},
    {kBF16, "BF16", 1, 2, DType::kBfloat16}, {kQ4_0, "Q4_0", 32, 18, std::nullopt},
    {kQ4_1, "Q4_1", 32, 20, std::nullopt},   {kQ5_0, "Q5_0", 32, 22, std::nullopt},
    {kQ5_1, "Q5_1", 32, 24, std::nullopt},   {kQ8_0, "Q8_0", 32, 34, std::nullopt},
    {kQ4_K, "Q4_K", 256, 144, std::nullopt}, {kQ5_K, "Q5_K", 256, 176, std::nullopt},
    {kQ6_K, "Q6_K", 256, 210, std::nullopt},
};

// Indexed by type; empty where GGML has none (any more).
constexpr std::string_view kTypeNames[] = {
    "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
    "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
    "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4",
};

float HalfAt(const uint8_t* bytes) {
  Float16 half;
  std::memcpy(&half.bits, bytes, sizeof(half.bits));
  return ToFloat(half);
}

// The low nibbles are elements 0..15, the high ones 16..31; `offset` is subtracted.
void ExpandNibbles(const uint8_t* nibbles, int offset, float* values) {
  for (int i = 0; i < 16; ++i) {
    values[i] = static_cast<float>((nibbles[i] & 15) - offset);
    values[i + 16] = static_cast<float>((nibbles[i] >> 4) - offset);
  }
}

// The same with a fifth bit per element out of a 32-bit word.
void ExpandFiveBits(const uint8_t* high, const uint8_t* nibbles, int offset, float* values) {
  uint32_t word;
  std::memcpy(&word, high, sizeof(word));
  for (int i = 0; i < 16; ++i) {
    const auto low_bit = static_cast<int>((word >> i) & 1u);
    const auto high_bit = static_cast<int>((word >> (i + 16)) & 1u);
    values[i] = static_cast<float>(((nibbles[i] & 15) | (low_bit << 4)) - offset);
    values[i + 16] = static_cast<float>(((nibbles[i] >> 4) | (high_bit << 4)) - offset);
  }
}

void Scale(float scale, const float* values, float* output) {
  for (int i = 0; i < 32; ++i) output[i] = scale * values[i];
}

void ScaleAndShift(float scale, float shift, const float* values, float* output) {
  for (int i = 0; i < 32; ++i) output[i] = scale * values[i] + shift;
}

void ExpandQ4_0(const uint8_t* block, float* output) {
  float values[32];
  ExpandNibbles(block + 2, 8, values);
  Scale(HalfAt(block), values, output);
}

void ExpandQ4_1(const uint8_t* block, float* output) {
  float values[32];
  ExpandNibbles(block + 4, 0, values);
  ScaleAndShift(HalfAt(block), HalfAt(block + 2), values, output);
}

void ExpandQ5_0(const uint8_t* block, float* output) {
  float values[32];
  ExpandFiveBits(block + 2, block + 6, 16, values);
  Scale(HalfAt(block), values, output);
}

void ExpandQ5_1(const uint8_t* block, float* output) {
  float values[32];
  ExpandFiveBits(block + 4, block + 8, 0, values);
  ScaleAndShift(HalfAt(block), HalfAt(block + 2), values, output);
}

void ExpandQ8_0(const uint8_t* block, float* output) {
  const float scale = HalfAt(block);
  const uint8_t* values = block + 2;
  for (int i = 0; i < 32; ++i) {
    output[i] = static_cast<float>(static_cast<int8_t>(values[i])) * scale;
  }
}

// Scales and minima of the eight groups of a Q4_K or Q5_K block: six bits each, in twelve bytes.
// Group g < 4 has them in the low six bits of bytes g and g + 4; group g >= 4 has four bits in byte
// g + 4 and two more in the top bits of bytes g - 4 and g.
struct GroupScales {
  float scale[8];
  float minimum[8];
};

GroupScales UnpackGroupScales(const uint8_t* block) {
  const float scale = HalfAt(block);
  const float minimum = HalfAt(block + 2);
  const uint8_t* packed = block + 4;
  GroupScales groups;
  for (int g = 0; g < 4; ++g) {
    groups.scale[g] = scale * static_cast<float>(packed[g] & 63);
    groups.minimum[g] = minimum * static_cast<float>(packed[g + 4] & 63);
    const int upper_scale = (packed[g + 8] & 15) | ((packed[g] >> 2) & 48);
    const int upper_minimum = (packed[g + 8] >> 4) | ((packed[g + 4] >> 2) & 48);
    groups.scale[g + 4] = scale * static_cast<float>(upper_scale);
    groups.minimum[g + 4] = minimum * static_cast<float>(upper_minimum);
  }
  return groups;
}

void ExpandQ4_K(const uint8_t* block, float* output) {
  const GroupScales groups = UnpackGroupScales(block);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* nibbles = block + 16 + (g / 2) * 32;
    const int shift = (g % 2) * 4;
    for (int i = 0; i < 32; ++i) {
      const auto value = static_cast<float>((nibbles[i] >> shift) & 15);
      output[g * 32 + i] = groups.scale[g] * value - groups.minimum[g];
    }
  }
}

void ExpandQ5_K(const uint8_t* block, float* output) {
  const GroupScales groups = UnpackGroupScales(block);
  const uint8_t* high = block + 16;
  for (int g = 0; g < 8; ++g) {
    const uint8_t* nibbles = block + 48 + (g / 2) * 32;
    const int shift = (g % 2) * 4;
    for (int i = 0; i < 32; ++i) {
      const int value = ((nibbles[i] >> shift) & 15) | (((high[i] >> g) & 1) << 4);
      output[g * 32 + i] = groups.scale[g] * static_cast<float>(value) - groups.minimum[g];
    }
  }
}

// Two halves of 128 values: 64 bytes of low nibbles, 32 bytes of two upper bits each; in a half,
// rows 0 and 1 of 32 values are low nibbles, rows 2 and 3 high ones. A scale per 16 values.
void ExpandQ6_K(const uint8_t* block, float* output) {
  const float scale = HalfAt(block + 208);
  for (int row = 0; row < 8; ++row) {
    const int half = row / 4;
    const int quarter = row % 4;
    const uint8_t* low = block + half * 64 + (quarter % 2) * 32;
    const uint8_t* high = block + 128 + half * 32;
    const uint8_t* scales = block + 192 + row * 2;
    const float row_scale[2] = {scale * static_cast<float>(static_cast<int8_t>(scales[0])),
                                scale * static_cast<float>(static_cast<int8_t>(scales[1]))};
    const int shift = (quarter / 2) * 4;
    for (int i = 0; i < 32; ++i) {
      const int upper = (high[i] >> (2 * quarter)) & 3;
      const int value = (((low[i] >> shift) & 15) | (upper << 4)) - 32;
      output[row * 32 + i] = row_scale[i / 16] * static_cast<float>(value);
    }
  }
}

template <void (*expand)(const uint8_t*, float*)>
void ExpandAll(const GgmlEncoding& encoding, std::string_view blocks, float* output) {
  const auto* block = reinterpret_cast<const uint8_t*>(blocks.data());
  const uint8_t* const end = block + blocks.size();
  for (; block != end; block += encoding.block_bytes, output += encoding.block_elements) {
    expand(block, output);
  }
}

}  // namespace

const GgmlEncoding* FindGgmlEncoding(uint32_t type) {
  for (const GgmlEncoding& encoding : kEncodings) {
    if (encoding.type == type) return &encoding;
  }
  return nullptr;
}

std::string GgmlTypeName(uint32_t type) {
  if (type < std::size(kTypeNames) && !kTypeNames[type].empty()) {
    return std::string(kTypeNames[type]);
  }
  return "type " + std::to_string(type);
}

std::string SupportedGgmlTypes() {
  std::string names;
  for (const GgmlEncoding& encoding : kEncodings) {
    if (!names.empty()) names += ", ";
    names += encoding.name;
  }
  return names;
}

void Dequantize(const GgmlEncoding& encoding, std::string_view blocks, std::span<float> output) {
  const auto elements = static_cast<int64_t>(output.size());
  STRUCTATTN_CHECK(elements % encoding.block_elements == 0);
  STRUCTATTN_CHECK(static_cast<int64_t>(blocks.size()) ==
                   elements / encoding.block_elements * encoding.block_bytes);
  switch (encoding.type) {
    case kQ4_0:
      return ExpandAll<ExpandQ4_0>(encoding, blocks, output.data());
    case kQ4_1:
      return ExpandAll<ExpandQ4_1>(encoding, blocks, output.data());
    case kQ5_0:
      return ExpandAll<ExpandQ5_0>(encoding, blocks, output.data());
    case kQ5_1:
      return ExpandAll<ExpandQ5_1>(encoding, blocks, output.data());
    case kQ8_0:
      return ExpandAll<ExpandQ8_0>(encoding, blocks, output.data());
    case kQ4_K:
      return ExpandAll<ExpandQ4_K>(encoding, blocks, output.data());
    case kQ5_K:
      return ExpandAll<ExpandQ5_K>(encoding, blocks, output.data());
    case kQ6_K:
      return ExpandAll<ExpandQ6_K>(encoding, blocks, output.data());
    default:
      STRUCTATTN_CHECK(!"a plain encoding needs no expansion");
  }
}

}  // namespace structattn
