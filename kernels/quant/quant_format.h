// Matrices of small integers with scales, as GGML stores them in GGUF files, and the int8 that
// any matrix can be rounded to. Read by server/model's checkpoints, packed by
// PackedWeight::PackQuantized; multiplies nothing. What a value is stands in QuantBlockLayout; how
// bytes of a file hold it, in quant_format.cc.
#ifndef STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_
#define STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "kernels/matrix_view.h"
#include "kernels/thread_pool.h"

namespace structattn {

// By GGML's names.
enum class QuantFormat { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

inline constexpr QuantFormat kQuantFormats[] = {
    QuantFormat::kQ4_0, QuantFormat::kQ4_1, QuantFormat::kQ5_0, QuantFormat::kQ5_1,
    QuantFormat::kQ8_0, QuantFormat::kQ4_K, QuantFormat::kQ5_K, QuantFormat::kQ6_K};

// Inputs that kernels take together: every block is one chunk, or eight.
inline constexpr int kChunkInputs = 32;

// A value is scale * (code - offset) + shift, each operation rounded to float, where scale and
// shift are a block's halves d and m; or, of a block of eight chunks with scales of their own,
// scale = d * its strip's, shift = -(m * its chunk's minimum).
struct QuantBlockLayout {
  int code_bits;         // 4, 5, 6 or 8; codes of 8 bits are signed, others are not.
  int offset;            // Of codes.
  int chunks;            // Of a block: 1, or 8 with scales of their own.
  int strips_per_chunk;  // Of values that share a scale: 1 or 2.
  bool has_shift;

  constexpr bool has_strip_scales() const { return chunks > 1; }
  constexpr int inputs() const { return chunks * kChunkInputs; }
};

constexpr QuantBlockLayout QuantLayoutOf(QuantFormat format) {
  switch (format) {
    case QuantFormat::kQ4_0:
      return {4, 8, 1, 1, false};
    case QuantFormat::kQ4_1:
      return {4, 0, 1, 1, true};
    case QuantFormat::kQ5_0:
      return {5, 16, 1, 1, false};
    case QuantFormat::kQ5_1:
      return {5, 0, 1, 1, true};
    case QuantFormat::kQ8_0:
      return {8, 0, 1, 1, false};
    case QuantFormat::kQ4_K:
      return {4, 0, 8, 1, true};
    case QuantFormat::kQ5_K:
      return {5, 0, 8, 1, true};
    case QuantFormat::kQ6_K:
      return {6, 32, 8, 2, false};
  }
  return {};
}

// Of one block in a file.
constexpr int64_t QuantBlockBytes(QuantFormat format) {
  switch (format) {
    case QuantFormat::kQ4_0:
      return 18;
    case QuantFormat::kQ4_1:
      return 20;
    case QuantFormat::kQ5_0:
      return 22;
    case QuantFormat::kQ5_1:
      return 24;
    case QuantFormat::kQ8_0:
      return 34;
    case QuantFormat::kQ4_K:
      return 144;
    case QuantFormat::kQ5_K:
      return 176;
    case QuantFormat::kQ6_K:
      return 210;
  }
  return 0;
}

constexpr std::string_view Name(QuantFormat format) {  // "Q4_K"
  constexpr std::string_view kNames[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1",
                                         "Q8_0", "Q4_K", "Q5_K", "Q6_K"};
  return kNames[static_cast<int>(format)];
}

// A row-major matrix [rows, columns] in blocks along its rows, not owned. The values of a row's
// last block that are past its end are 0. `data` needs no alignment.
struct QuantMatrixView {
  const void* data = nullptr;
  QuantFormat format = QuantFormat::kQ8_0;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t row_quant_blocks() const {
    const int inputs = QuantLayoutOf(format).inputs();
    return (columns + inputs - 1) / inputs;
  }
  int64_t row_bytes() const { return row_quant_blocks() * QuantBlockBytes(format); }
};

// One block, taken apart.
struct QuantBlockParts {
  static constexpr int kMostInputs = 256;
  uint8_t codes[kMostInputs];  // In the order of the inputs; of 8 bits: two's complement.
  uint16_t scale;              // d, the bits of a half.
  uint16_t shift;              // m, likewise.
  uint8_t strip_scales[16];    // Of Q6_K: two's complement.
  uint8_t minima[8];
};
QuantBlockParts ReadQuantBlock(QuantFormat format, const void* block);

// Its QuantLayoutOf(format).inputs() values.
void DequantizeBlock(QuantFormat format, const void* block, float* values);

// Rounds 32 floats to a block of Q8_0 at `block`: scale = largest magnitude / 127 as a half, codes
// the nearest multiples of it within 127, ties to even. Below a largest magnitude of some 0.008 the
// step is a subnormal half and coarser, below 4e-6 it is 0, as in GGML. A block with a value that
// is not finite gets a NaN for its scale, so all that it touches is NaN.
void QuantizeQ8_0(const float* values, void* block);

// A quantized matrix, and its memory unless that is somebody else's.
struct QuantMatrix {
  QuantMatrixView view;
  std::unique_ptr<std::byte[]> owned;
};

// Every row rounded to Q8_0.
QuantMatrix QuantizeRows(const MatrixView& matrix, ThreadPool& pool);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_QUANT_QUANT_FORMAT_H_
