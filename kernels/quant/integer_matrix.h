// Matrices of small integers with a scale and a zero for each quant block, as GPTQ, AWQ and
// compressed-tensors store them: their values, and their quant blocks where the table of formats
// holds them exactly. It multiplies nothing and checks no file.
#ifndef STRUCTATTN_KERNELS_QUANT_INTEGER_MATRIX_H_
#define STRUCTATTN_KERNELS_QUANT_INTEGER_MATRIX_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/quant/quant_format.h"
#include "kernels/thread_pool.h"

namespace structattn {

// How codes of 4 or 8 bits lie in memory. A word has 32 bits, little-endian, and the first of its
// codes in the lowest ones.
enum class CodeOrder {
  kWordsOfInputs,   // [inputs / codes of a word][outputs] words of neighbouring inputs.
  kWordsOfOutputs,  // [inputs][outputs / 8] words of neighbouring outputs 0, 2, 4, 6, 1, 3, 5, 7.
  kRows,            // [outputs] rows of `row_bytes` bytes, codes of neighbouring inputs.
};

struct CodeMatrix {
  const uint8_t* data = nullptr;  // Not owned, of any alignment.
  CodeOrder order = CodeOrder::kRows;
  int bits = 4;
  bool is_signed = false;  // In two's complement; of 8 bits only.
  int64_t row_bytes = 0;   // Of kRows.
  int64_t outputs = 0;
  int64_t inputs = 0;
};

// Value [output][input] = scale * (code - zero), where a code in two's complement counts from -128
// as 0 upwards. The difference is exact in float, and the product rounded once.
struct IntegerMatrix {
  CodeMatrix codes;
  std::vector<int32_t> quant_block_of;  // [inputs]
  std::vector<float> scales;            // [quant blocks][outputs]
  std::vector<uint8_t> zeros;           // [quant blocks][outputs]

  // The values of one output, [inputs].
  void ExpandRow(int64_t output, float* values) const;

  // The format whose quant blocks have the same values: Q4_0, Q5_0 or Q8_0. Absent where inputs of
  // a chunk are of several quant blocks, a scale is no finite half, or a difference has too many
  // bits.
  std::optional<QuantFormat> HeldAs() const;
};

// The rows of `matrix` in that format.
QuantMatrix Requantize(const IntegerMatrix& matrix, QuantFormat format, ThreadPool& pool);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_QUANT_INTEGER_MATRIX_H_
