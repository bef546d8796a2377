// GGML's block encodings and their expansion to float.
// Called by server/model/gguf_checkpoint; equal, bit for bit, to PyPI `gguf.dequantize`. Knows
// neither files nor tensors.
#ifndef STRUCTATTN_SERVER_MODEL_DEQUANTIZE_H_
#define STRUCTATTN_SERVER_MODEL_DEQUANTIZE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kernels/dtype.h"
#include "kernels/quant/quant_format.h"

namespace structattn {

// How GGML stores a tensor: blocks of `quant_block_values` values in `quant_block_bytes` bytes.
struct GgmlEncoding {
  uint32_t type;  // The number in a GGUF file.
  std::string_view name;
  int64_t quant_block_values;
  int64_t quant_block_bytes;
  // Plain encodings (F32, F16, BF16); absent for quantised ones.
  std::optional<DType> plain;
  std::optional<QuantFormat> quant_format;  // Of the quantised ones.
};

// Null for a type that is not supported.
const GgmlEncoding* FindGgmlEncoding(uint32_t type);

// "Q3_K" or, for a number that GGML does not know, "type 99".
std::string GgmlTypeName(uint32_t type);

// The supported names, comma-separated, for messages.
std::string SupportedGgmlTypes();

// Expands whole blocks of a quantised encoding. output.size() is a multiple of quant_block_values,
// and `blocks` holds exactly as many blocks; it needs no alignment.
void Dequantize(const GgmlEncoding& encoding, std::string_view blocks, std::span<float> output);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DEQUANTIZE_H_
