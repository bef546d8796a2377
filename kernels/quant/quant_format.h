// The formats of quantized weights: small integers (codes) with scales, in quant blocks as GGML
// stores them in GGUF files, and the int8 that any matrix can be rounded to. It says what a value
// is and how bytes hold it; it multiplies nothing and knows neither files nor packed panels.
#ifndef STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_
#define STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "kernels/matrix_view.h"
#include "kernels/thread_pool.h"

namespace structattn {

// GGML's names.
enum class QuantFormat { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

inline constexpr QuantFormat kQuantFormats[] = {
    QuantFormat::kQ4_0, QuantFormat::kQ4_1, QuantFormat::kQ5_0, QuantFormat::kQ5_1,
    QuantFormat::kQ8_0, QuantFormat::kQ4_K, QuantFormat::kQ5_K, QuantFormat::kQ6_K};

// Kernels take 32 inputs together: a quant block is one such chunk, or eight.
inline constexpr int kChunkInputs = 32;

// A value is scale * (code - offset) + shift, each operation rounded to float. Of one chunk, scale
// and shift are the quant block's halves d and m. Eight chunks are cut into strips, of inputs that
// share a scale: scale = d * the strip's scale, shift = -(m * the chunk's minimum).
struct QuantBlockLayout {
  std::string_view name;
  uint32_t ggml_type;    // The format's number in a GGUF file.
  int bytes;             // Bytes of a quant block in a file.
  int code_bits;         // 4, 5, 6 or 8; codes of 8 bits are signed, others are not.
  int offset;            // Subtracted from codes.
  int chunks;            // 1, or 8 with strips.
  int strips_per_chunk;  // 1 or 2.
  bool has_shift;

  constexpr bool has_strip_scales() const { return chunks > 1; }
  constexpr int inputs() const { return chunks * kChunkInputs; }
};

// The table of formats, in the order of the enum.
inline constexpr QuantBlockLayout kQuantBlockLayouts[] = {
    {"Q4_0", 2, 18, 4, 8, 1, 1, false},  {"Q4_1", 3, 20, 4, 0, 1, 1, true},
    {"Q5_0", 6, 22, 5, 16, 1, 1, false}, {"Q5_1", 7, 24, 5, 0, 1, 1, true},
    {"Q8_0", 8, 34, 8, 0, 1, 1, false},  {"Q4_K", 12, 144, 4, 0, 8, 1, true},
    {"Q5_K", 13, 176, 5, 0, 8, 1, true}, {"Q6_K", 14, 210, 6, 32, 8, 2, false},
};

constexpr const QuantBlockLayout& QuantLayoutOf(QuantFormat format) {
  return kQuantBlockLayouts[static_cast<int>(format)];
}

constexpr std::string_view Name(QuantFormat format) { return QuantLayoutOf(format).name; }

// A row-major matrix [rows, columns] of quant blocks along its rows, not owned. Values of a row's
// last quant block that are past the row's end are 0. `data` needs no alignment.
struct QuantMatrixView {
  const void* data = nullptr;
  QuantFormat format = QuantFormat::kQ8_0;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t row_quant_blocks() const {
    const int inputs = QuantLayoutOf(format).inputs();
    return (columns + inputs - 1) / inputs;
  }
  int64_t row_bytes() const { return row_quant_blocks() * QuantLayoutOf(format).bytes; }
};

// A quantized matrix with its memory, which is null where it has another owner.
struct QuantMatrix {
  QuantMatrixView view;
  std::unique_ptr<std::byte[]> owned;
};

// A quant block, taken apart.
struct UnpackedQuantBlock {
  uint8_t codes[256];        // In the order of the inputs; codes of 8 bits in two's complement.
  uint16_t scale;            // The bits of the half d.
  uint16_t shift;            // The bits of the half m.
  uint8_t strip_scales[16];  // In two's complement for Q6_K.
  uint8_t minima[8];
};
UnpackedQuantBlock ReadQuantBlock(QuantFormat format, const void* quant_block);

// The same bytes again, for Q4_0, Q5_0, Q8_0 and Q6_K.
void WriteQuantBlock(QuantFormat format, const UnpackedQuantBlock& unpacked, void* quant_block);

// The values of `count` quant blocks, bit for bit those of GGML's reference.
void Dequantize(QuantFormat format, const void* quant_blocks, int64_t count, float* values);

// Rounds 32 floats to a quant block of Q8_0: scale = largest magnitude / 127 as a half, codes the
// nearest multiples of it within 127, ties to even. Below a largest magnitude of some 0.008 the
// scale is a subnormal half and coarser, below 4e-6 it is 0, as in GGML. If a value is not finite,
// the scale is NaN, and so is all that meets it.
void QuantizeQ8_0(const float* values, void* quant_block);

// Every row rounded to Q8_0.
QuantMatrix QuantizeRows(const MatrixView& matrix, ThreadPool& pool);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_
