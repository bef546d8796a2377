// The seam between LinearCpu and its kernels: one table entry per instruction set and weight dtype.
// Used by linear_cpu.cc, linear_pack.cc, the linear_<isa>.cc files and their tests; nobody else.
#ifndef STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_
#define STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/dtype.h"
#include "kernels/quant/quant_format.h"

namespace structattn {

// Of the kernels in vectors: rows of one item of the parallel loop, at most; its panels are worked
// on in groups. Inputs and sums of a macro-panel stay on the thread's stack.
inline constexpr int kItemRows = 96;
inline constexpr int kMacroPanels = 16;

// Expands chunks [first, first + count) of a packed panel of quant blocks (quantized_panel.h) to
// floats: the steps of kChunkInputs inputs each, one after another.
using UnpackChunks = void (*)(const void* panel, int64_t first, int64_t count, float* cells);

// Few rows and a panel's sums of them, [rows, panel_outputs].
struct FewRows {
  const void* staged;  // The inputs as the kernel multiplies them, from the first chunk's on.
  int64_t staged_stride;
  float* sums;
};

// Adds such chunks to the sums. Where there is an UnpackChunks, too, the sums are the same.
using MultiplyChunks = void (*)(const void* panel, int64_t first, int64_t count,
                                const FewRows& rows);

// What a kernel knows of one format.
inline constexpr int kMostFewRows = 4;
struct QuantizedKernel {
  UnpackChunks unpack;                    // Null where chunks are multiplied as they are.
  MultiplyChunks multiply[kMostFewRows];  // Of 1, 2, ... rows; null above the tallest tile.
};

// Rows [row_begin, row_end) times neighbouring panels, any number of them:
// output = input weight^T + bias + residual.
struct LinearItem {
  const void* input;      // [rows, inputs] of the kernel's dtype, all rows of the call.
  const void* panels;     // The first panel of the item, packed as linear-inl.h shows.
  const float* bias;      // Of the item's first output, or null.
  const float* residual;  // [rows, output_stride] at the item's first output, or null.
  float* output;          // Likewise, never null.
  int64_t inputs;
  int64_t outputs;  // Real outputs in the item; its last panel may hold padding.
  int64_t output_stride;
  int64_t row_begin;
  int64_t row_end;
  int64_t panel_bytes = 0;                     // Of blocks: from panel to panel.
  const QuantizedKernel* quantized = nullptr;  // Likewise.
};

struct LinearKernel {
  std::string_view name;  // "avx512_bf16"
  DType dtype;            // Of inputs, and of weights that are not quantized.
  int panel_outputs;      // Outputs that lie side by side in a panel.
  int inputs_per_step;    // Inputs of one output that lie side by side.
  bool dot_order;         // Blocks are packed for quantized_dot-inl.h.
  int steps_multiple;     // Panels are padded with zeros to a multiple of so many steps.
  int item_rows;          // Of one item, at most; a multiple of 32.
  void (*run)(const LinearItem& item);            // Of panels of numbers, or null.
  void (*run_quantized)(const LinearItem& item);  // Of panel of quant blocks, or null.
  const QuantizedKernel& (*find_quantized)(QuantFormat format);  // Or null, likewise.
};

// The kernels of each instruction set that this CPU supports (empty if it does not), the best of a
// dtype first.
std::span<const LinearKernel> AmxLinearKernels();
std::span<const LinearKernel> Avx512Bf16LinearKernels();
std::span<const LinearKernel> Avx512LinearKernels();
std::span<const LinearKernel> Avx2LinearKernels();
std::span<const LinearKernel> PortableLinearKernels();

// The sets above, best first.
inline constexpr std::span<const LinearKernel> (*kLinearKernelSets[])() = {
    AmxLinearKernels, Avx512Bf16LinearKernels, Avx512LinearKernels, Avx2LinearKernels,
    PortableLinearKernels};

// The kernels of bfloat16 inputs and quantized weights: quantized_dot-inl.h says what they compute.
// Those above are for blocks and inputs of other types.
std::span<const LinearKernel> Avx512VnniDotKernels();
std::span<const LinearKernel> Avx2DotKernels();
std::span<const LinearKernel> PortableDotKernels();
inline constexpr std::span<const LinearKernel> (*kDotKernelSets[])() = {
    Avx512VnniDotKernels, Avx2DotKernels, PortableDotKernels};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_
