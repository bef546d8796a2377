// The packed layout of quantized weights: a panel of P outputs, quant block after quant block along
// the inputs. The layout of other weights is in linear-inl.h. It touches no memory.
//
//   quant block (32 or 256 inputs of P outputs)
//     d[P] halves; m[P] halves where values have a shift
//     chunk (32 inputs), one or eight of them:
//       strip scales [strips][P] bytes and minima [P] bytes, where there are eight chunks
//       fifth bits  [P] words where codes have more than four: bit k is input k's
//       sixth bits  [P] words where codes have six: bit k is input k's
//       nibbles     [16][P] bytes: row t has input 2t low and input 2t + 1 high; or, of 8 bits,
//       codes       [32][P] bytes: row k is input k's
// For bfloat16 inputs, where four inputs of an output are multiplied at once (quantized_dot.cc), in
// the same places:
//       fifth, sixth bits: bit 8 (k % 4) + k / 4 is input k's
//       nibbles     [4][P][4] bytes: row t has inputs 8t to 8t + 3 low, 8t + 4 to 8t + 7 high; or
//       codes       [8][P][4] bytes: row t has inputs 4t to 4t + 3, plus 128
// Outputs lie side by side as in a panel of numbers, so that the lanes of a vector are outputs
// here, too. Missing outputs of the last panel are 0.
#ifndef STRUCTATTN_KERNELS_LINEAR_QUANTIZED_PANEL_H_
#define STRUCTATTN_KERNELS_LINEAR_QUANTIZED_PANEL_H_

#include <cstdint>

#include "kernels/quant/quant_format.h"

namespace structattn::linear {

// Byte offsets, for panels of P outputs.
struct QuantizedPanelLayout {
  int64_t shifts;  // In a quant block, whose scales are at 0.
  int64_t chunks;  // In a quant block: its first chunk.
  int64_t minima;  // In a chunk, whose strip scales are at 0.
  int64_t fifth_bits;
  int64_t sixth_bits;
  int64_t codes;
  int64_t chunk_bytes;
  int64_t quant_block_bytes;
};

constexpr QuantizedPanelLayout PanelLayoutOf(QuantFormat format, int64_t panel_outputs) {
  const QuantBlockLayout& layout = QuantLayoutOf(format);
  const int64_t halves = 2 * panel_outputs;
  const int64_t words = 4 * panel_outputs;
  const bool strips = layout.has_strip_scales();
  QuantizedPanelLayout at = {};
  at.shifts = halves;
  at.chunks = layout.has_shift ? 2 * halves : halves;
  at.minima = strips ? layout.strips_per_chunk * panel_outputs : 0;
  at.fifth_bits = at.minima + (strips && layout.has_shift ? panel_outputs : 0);
  at.sixth_bits = at.fifth_bits + (layout.code_bits == 5 || layout.code_bits == 6 ? words : 0);
  at.codes = at.sixth_bits + (layout.code_bits == 6 ? words : 0);
  at.chunk_bytes = at.codes + (layout.code_bits == 8 ? 32 : 16) * panel_outputs;
  at.quant_block_bytes = at.chunks + layout.chunks * at.chunk_bytes;
  return at;
}

}  // namespace structattn::linear

#endif  // STRUCTATTN_KERNELS_LINEAR_QUANTIZED_PANEL_H_
