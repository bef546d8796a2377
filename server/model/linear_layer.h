// One weight matrix of the decoder, on the device where it is used: packed for our CPU kernel,
// rounded to int8 for our CUDA kernel, or a LibTorch tensor (cuBLASLt on CUDA). Used by the
// transformer; knows nothing of its place there.
#ifndef STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_
#define STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/context.h"
#include "kernels/linear/linear.h"
#include "server/model/int8_matrix.h"

namespace structattn {

class LinearLayer {
 public:
  LinearLayer() = default;

  // For the CPU: the rows of `parts` on top of each other, all with the same inputs; there are
  // several where they are stored in different formats. `bias`: [rows] float, or undefined.
  LinearLayer(std::vector<PackedWeight> parts, at::Tensor bias);
  // For other devices: `weight` [outputs, inputs] and `bias` [outputs] float or undefined, there.
  LinearLayer(at::Tensor weight, at::Tensor bias);
  LinearLayer(Int8Matrix weight, at::Tensor bias);

  // output = input W^T + bias; with `product`, output += input W^T + bias.
  // input [>= rows, inputs] of the layer's dtype, output and product [>= rows, outputs] float,
  // contiguous. What is in `product` before and after has no meaning.
  struct Operands {
    const at::Tensor& input;
    at::Tensor& output;
    int64_t rows;
    at::Tensor* product = nullptr;
  };
  // Allocates nothing on CUDA.
  void Forward(const KernelContext& context, const Operands& operands) const;

  int64_t outputs() const { return outputs_; }

 private:
  void ForwardTorch(const Operands& operands) const;
  void ForwardInt8(const KernelContext& context, const Operands& operands) const;

  int64_t outputs_ = 0;
  std::vector<PackedWeight> parts_;  // CPU.
  at::Tensor weight_;                // Elsewhere, or
  Int8Matrix int8_;                  // this.
  at::Tensor bias_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_
