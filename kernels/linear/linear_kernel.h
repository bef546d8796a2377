// The table of CPU kernels: one entry for an instruction set and a type of inputs, and what a
// kernel is given to do. Multiplies nothing.
#ifndef STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_
#define STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/dtype.h"
#include "kernels/linear/linear.h"
#include "kernels/quant/quant_format.h"

namespace structattn::linear {

// Rows of an item of a kernel in vectors, at most, and panels of a macro-panel. Inputs and sums of
// a macro-panel stay on the thread's stack.
inline constexpr int kItemRows = 96;
inline constexpr int kMacroPanels = 16;

// Rows [row_begin, row_end) times neighbouring panels, any number of them: output = input weight^T
// + bias, with `accumulate` + what output was.
struct LinearItem {
  const void* input;   // [rows, inputs] of the kernel's dtype, all rows of the call.
  const void* panels;  // The item's first panel, packed as linear-inl.h shows.
  QuantFormat format;  // The format of quantized weights.
  const float* bias;   // Starts at the item's first output; may be null.
  float* output;       // [rows, output_stride], at the item's first output.
  bool accumulate;
  int64_t inputs;
  int64_t units;    // Units of a panel, padding included (linear-inl.h).
  int64_t outputs;  // Real outputs in the item; its last panel may hold padding.
  int64_t output_stride;
  int64_t panel_bytes;  // From panel to panel.
  int64_t row_begin;
  int64_t row_end;
};

struct LinearKernel {
  std::string_view name;      // "avx512_bf16"
  DType dtype;                // The dtype of inputs, and of weights that are not quantized.
  int panel_outputs;          // Outputs that lie side by side in a panel.
  int inputs_per_unit = 1;    // Inputs of one output that lie side by side.
  int units_multiple = 1;     // Zeros pad panels to a multiple of so many units.
  int item_rows = kItemRows;  // The most rows of an item; a multiple of 32.
  void (*run)(const LinearItem& item);  // Multiplies panels of numbers.
  void (*run_quantized)(const LinearItem& item) =
      nullptr;  // Multiplies panels of quant blocks; may be null.

  int64_t Units(int64_t inputs) const {
    const int64_t multiple = int64_t{inputs_per_unit} * units_multiple;
    return (inputs + multiple - 1) / multiple * units_multiple;
  }
};

// The kernels that this CPU supports, the best of a dtype first.
std::span<const LinearKernel> Bfloat16Kernels();  // AMX, AVX512_BF16; on few CPUs.
std::span<const LinearKernel> FloatKernels();     // Vectors of floats, of every dtype on every CPU.

const LinearKernel& BestLinearKernel(DType dtype);
const LinearKernel& BestQuantizedKernel(DType dtype);

void LinearCpu(ThreadPool& pool, std::span<const LinearParams> products);

}  // namespace structattn::linear

#endif  // STRUCTATTN_KERNELS_LINEAR_LINEAR_KERNEL_H_
