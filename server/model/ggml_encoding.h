// How GGUF files encode tensors: GGML's numbers and names of types, plain and quantized. What a
// quant block means is in kernels/quant. It knows neither files nor tensors.
#ifndef STRUCTATTN_SERVER_MODEL_GGML_ENCODING_H_
#define STRUCTATTN_SERVER_MODEL_GGML_ENCODING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/dtype.h"
#include "kernels/quant/quant_format.h"

namespace structattn {

// `quant_block_values` values take `quant_block_bytes` bytes; a plain value is a quant block of
// one.
struct GgmlEncoding {
  uint32_t type;  // The number in a GGUF file.
  std::string_view name;
  int64_t quant_block_values;
  int64_t quant_block_bytes;
  // One of the two is there.
  std::optional<DType> plain;  // F32, F16, BF16.
  std::optional<QuantFormat> quant_format;
};

// Null for a type that is not supported.
const GgmlEncoding* FindGgmlEncoding(uint32_t type);

// "Q3_K" or, for a number that GGML does not know, "type 99".
std::string GgmlTypeName(uint32_t type);

// The supported names, comma-separated, for messages.
std::string SupportedGgmlTypes();

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_GGML_ENCODING_H_
