// GGML's numbers and names of tensor types, and whole runs of blocks expanded to float: see
// dequantize.h. What a block means is in kernels/quant/quant_format.
#include "server/model/dequantize.h"

#include <iterator>

#include "kernels/check.h"

namespace structattn {
namespace {

constexpr GgmlEncoding Plain(uint32_t type, std::string_view name, DType dtype) {
  return {type, name, 1, static_cast<int64_t>(ByteSize(dtype)), dtype, std::nullopt};
}

constexpr GgmlEncoding Blocks(uint32_t type, QuantFormat format) {
  return {type,         Name(format), QuantLayoutOf(format).inputs(), QuantBlockBytes(format),
          std::nullopt, format};
}

constexpr GgmlEncoding kEncodings[] = {
    Plain(0, "F32", DType::kFloat32),    Plain(1, "F16", DType::kFloat16),
    Plain(30, "BF16", DType::kBfloat16), Blocks(2, QuantFormat::kQ4_0),
    Blocks(3, QuantFormat::kQ4_1),       Blocks(6, QuantFormat::kQ5_0),
    Blocks(7, QuantFormat::kQ5_1),       Blocks(8, QuantFormat::kQ8_0),
    Blocks(12, QuantFormat::kQ4_K),      Blocks(13, QuantFormat::kQ5_K),
    Blocks(14, QuantFormat::kQ6_K),
};

// Indexed by type; empty where GGML has none (any more).
constexpr std::string_view kTypeNames[] = {
    "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
    "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
    "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4",
};

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
  STRUCTATTN_CHECK(encoding.quant_format.has_value() &&
                   elements % encoding.quant_block_values == 0);
  STRUCTATTN_CHECK(static_cast<int64_t>(blocks.size()) ==
                   elements / encoding.quant_block_values * encoding.quant_block_bytes);
  for (int64_t block = 0; block < elements / encoding.quant_block_values; ++block) {
    DequantizeBlock(*encoding.quant_format, blocks.data() + block * encoding.quant_block_bytes,
                    output.data() + block * encoding.quant_block_values);
  }
}

}  // namespace structattn
