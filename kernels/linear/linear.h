// y = x W^T + b with weights packed once for streaming. CPU only: on CUDA the decoder uses
// LibTorch, or int8_linear. Called by server/model/linear_layer. The bits of one output row depend
// only on that row's input and the weight: not on the number of rows, their order, or the number of
// threads (every output element is one fixed chain of multiply-adds over k; see linear-inl.h, and
// quantized_dot-inl.h for quantized weights).
#ifndef STRUCTATTN_KERNELS_LINEAR_LINEAR_H_
#define STRUCTATTN_KERNELS_LINEAR_LINEAR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "kernels/context.h"
#include "kernels/dtype.h"
#include "kernels/linear/weight_arena.h"
#include "kernels/matrix_view.h"
#include "kernels/quant/quant_format.h"

namespace structattn {

struct LinearKernel;  // kernels/linear/linear_kernel.h

// Where and how weights are packed.
struct PackTarget {
  DType dtype;
  ThreadPool& pool;  // Its threads pack.
  WeightArena& arena;
};

// Weights [outputs, inputs] in the layout that the kernel streams. Move-only.
class PackedWeight {
 public:
  // Stacks the views' rows (fused QKV, gate/up), converts them to the target's dtype and packs them
  // for the best kernel of this CPU. All views have the same number of columns.
  static PackedWeight Pack(std::span<const MatrixView> views, const PackTarget& target);

  // Likewise for a given kernel, of the target's dtype, which this CPU must support.
  static PackedWeight PackFor(const LinearKernel& kernel, std::span<const MatrixView> views,
                              const PackTarget& target);

  // Likewise for quantized matrices, all of one format, which stay so: the target's
  // dtype is that of the inputs. The kernel multiplies by the values that the format means: with
  // bfloat16 inputs as quantized_dot-inl.h says, with others as floats.
  static PackedWeight PackQuantized(std::span<const QuantMatrixView> views,
                                    const PackTarget& target);
  static PackedWeight PackQuantizedFor(const LinearKernel& kernel,
                                       std::span<const QuantMatrixView> views,
                                       const PackTarget& target);

  PackedWeight() = default;
  PackedWeight(PackedWeight&&) = default;
  PackedWeight& operator=(PackedWeight&&) = default;

  DType dtype() const;                                           // Of the inputs.
  std::optional<QuantFormat> format() const { return format_; }  // Absent: weights are of dtype().
  const LinearKernel& kernel() const { return *kernel_; }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  int64_t bytes() const { return bytes_; }
  const void* data() const { return data_.get(); }

 private:
  std::shared_ptr<void> data_;  // 64-byte aligned, in the arena.
  int64_t bytes_ = 0;
  const LinearKernel* kernel_ = nullptr;
  std::optional<QuantFormat> format_;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
};

struct LinearParams {
  const void* input = nullptr;  // [rows, inputs] of weight->dtype().
  const PackedWeight* weight = nullptr;
  const float* bias = nullptr;      // [outputs] or null.
  const float* residual = nullptr;  // [rows, outputs] added to the result, or null; may be output.
  float* output = nullptr;          // [rows, outputs].
  int64_t rows = 0;
  int64_t output_stride = 0;  // Floats from row to row of output and residual; 0: outputs.
};

void LinearCpu(ThreadPool& pool, const LinearParams& params);

// The best kernel for weights and inputs of `dtype` on this CPU; and for quantized weights.
const LinearKernel& BestLinearKernel(DType dtype);
const LinearKernel& BestQuantizedKernel(DType dtype);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_LINEAR_LINEAR_H_
