// See ggml_encoding.h.
#include "server/model/ggml_encoding.h"

#include <iterator>

namespace structattn {
namespace {

constexpr GgmlEncoding Plain(uint32_t type, std::string_view name, DType dtype) {
  return {type, name, 1, static_cast<int64_t>(ByteSize(dtype)), dtype, std::nullopt};
}

constexpr GgmlEncoding Quantized(QuantFormat format) {
  const QuantBlockLayout& layout = QuantLayoutOf(format);
  return {layout.ggml_type, layout.name, layout.inputs(), layout.bytes, std::nullopt, format};
}

constexpr GgmlEncoding kEncodings[] = {
    Plain(0, "F32", DType::kFloat32),    Plain(1, "F16", DType::kFloat16),
    Plain(30, "BF16", DType::kBfloat16), Quantized(QuantFormat::kQ4_0),
    Quantized(QuantFormat::kQ4_1),       Quantized(QuantFormat::kQ5_0),
    Quantized(QuantFormat::kQ5_1),       Quantized(QuantFormat::kQ8_0),
    Quantized(QuantFormat::kQ4_K),       Quantized(QuantFormat::kQ5_K),
    Quantized(QuantFormat::kQ6_K),
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

}  // namespace structattn
