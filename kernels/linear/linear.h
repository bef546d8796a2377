// The linear op: y = x W^T + b. A weight is packed once for streaming (CPU), plain or quantized, or
// lies in int8 codes with scales (CUDA). CUDA has no kernel here for weights of 16 or 32 bits:
// server/model multiplies those with LibTorch, which kernels/ does not know.
//
// The bits of an output row depend on its own input and the weight alone: not on the number of
// rows, their order or the number of threads. Every output is one fixed chain of multiply-adds over
// the inputs (linear-inl.h; quantized_dot.cc for quantized weights; int8_linear.cuh).
#ifndef STRUCTATTN_KERNELS_LINEAR_LINEAR_H_
#define STRUCTATTN_KERNELS_LINEAR_LINEAR_H_

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/context.h"
#include "kernels/dtype.h"
#include "kernels/matrix_view.h"
#include "kernels/quant/quant_format.h"
#include "kernels/weight_arena.h"

namespace structattn {

namespace linear {
struct LinearKernel;  // kernels/linear/linear_kernel.h
}  // namespace linear

enum class WeightKind {
  kPacked,     // CPU: panels of numbers, of the inputs' type.
  kQuantized,  // CPU: panels of quant blocks.
  kInt8,       // CUDA: weight[n][k] = codes[n][k] * scales[n][k / 32].
};

inline constexpr int kInt8ScaleInputs = 32;  // Inputs that share a scale of kInt8.
// A launch has 65535 thread blocks along an axis at most, of 16 outputs each (int8_linear.cuh).
inline constexpr int64_t kMostInt8Outputs = 65535 * 16;

// A weight [outputs, inputs], not owned.
struct LinearWeight {
  WeightKind kind = WeightKind::kPacked;
  DType input_dtype = DType::kFloat32;
  int64_t outputs = 0;
  int64_t inputs = 0;  // A multiple of 32 for kInt8.
  // kPacked and kQuantized: the panels, and the kernel that they are packed for.
  const void* panels = nullptr;
  int64_t panel_units = 0;  // Their length (linear-inl.h), and the bytes from one to the next.
  int64_t panel_bytes = 0;
  const linear::LinearKernel* kernel = nullptr;
  QuantFormat format = QuantFormat::kQ8_0;  // kQuantized.
  const int8_t* codes = nullptr;            // kInt8: [outputs, inputs], 16-byte aligned.
  const Float16* scales = nullptr;          // kInt8: [outputs, inputs / 32].
};

struct LinearParams {
  const void* input = nullptr;  // [rows, inputs] of weight.input_dtype; on CUDA 16-byte aligned.
  LinearWeight weight;
  const float* bias = nullptr;  // [outputs], added before what `accumulate` adds; null on CUDA.
  float* output = nullptr;      // [rows, outputs]
  bool accumulate = false;      // output += instead of =.
  int64_t rows = 0;
  int64_t output_stride = 0;  // Floats from row to row of the output; 0: outputs, as on CUDA.
};

void Linear(const KernelContext& context, const LinearParams& params);

// Products that do not depend on each other, with the bits of one Linear after the other; on CPU,
// the threads share them out all at once.
void LinearMany(const KernelContext& context, std::span<const LinearParams> products);

// A weight in the layout that a CPU kernel streams, with its memory, which copies share.
struct PackedWeight {
  LinearWeight view;
  std::shared_ptr<void> data;  // 64-byte aligned, in an arena.
  int64_t bytes = 0;
};

// Where and how weights are packed.
struct PackTarget {
  DType dtype;       // The inputs' dtype, and that of weights that are not quantized.
  ThreadPool& pool;  // Its threads pack.
  WeightArena& arena;
  // A kernel of that dtype that this CPU supports; null: the best one of this CPU.
  const linear::LinearKernel* kernel = nullptr;
};

// Stacks the views' rows (fused QKV, gate and up), all with the same number of columns, and packs
// them, converted to the target's dtype.
PackedWeight PackWeight(std::span<const MatrixView> views, const PackTarget& target);

// Stacks and packs quantized matrices, all of one format, which stay as they are: the product is
// that of the values which the format means, with bfloat16 inputs as quantized_dot.cc defines it,
// with others as floats.
PackedWeight PackWeight(std::span<const QuantMatrixView> views, const PackTarget& target);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_LINEAR_LINEAR_H_
