// One weight matrix of the decoder, on the device where it is used: packed for our CPU kernel, or a
// LibTorch tensor for cuBLASLt on CUDA. Used by the transformer; knows nothing of its place there.
#ifndef STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_
#define STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "kernels/linear/linear.h"

namespace structattn {

at::ScalarType ToScalarType(DType dtype);
c10::Device ToTorchDevice(DeviceKind device);

class LinearLayer {
 public:
  LinearLayer() = default;

  // Stacks the rows of `weights` (all with the same columns) in the target's dtype; its pool and
  // arena are for the CPU. `bias` is empty or has one float per stacked row.
  LinearLayer(const KernelContext& context, std::span<const MatrixView> weights,
              std::span<const float> bias, const PackTarget& target);

  // output = input W^T + bias (+ output, when `accumulate`).
  // input [>= rows, inputs] of the layer's dtype, output [>= rows, outputs] float, contiguous.
  struct Operands {
    const at::Tensor& input;
    at::Tensor& output;
    int64_t rows;
    bool accumulate = false;
  };
  void Forward(const KernelContext& context, const Operands& operands) const;

  int64_t outputs() const { return outputs_; }

 private:
  void ForwardTorch(const Operands& operands) const;

  int64_t outputs_ = 0;
  PackedWeight packed_;  // CPU.
  at::Tensor weight_;    // CUDA: [outputs, inputs].
  at::Tensor bias_;      // [outputs] float, or undefined.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_
