// One weight matrix of the decoder, held on the device where it is used: packed for the CPU, in
// int8 codes for CUDA, or as a LibTorch tensor. The first two are multiplied by kernels/linear; the
// last by LibTorch (cuBLASLt on CUDA), here, since kernels/ knows no tensor framework. It knows
// nothing of its place in the decoder.
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

  // For the CPU: the rows of `packed` on top of each other, all with the same inputs; there are
  // several where they are stored in different formats. `bias`: [rows] float, or undefined.
  LinearLayer(std::vector<PackedWeight> packed, at::Tensor bias);
  // On other devices than the CPU: `weight` [outputs, inputs] and `bias` [outputs], float or
  // undefined, there.
  LinearLayer(at::Tensor weight, at::Tensor bias);
  LinearLayer(Int8Matrix weight, DType input_dtype, at::Tensor bias);

  // output = input W^T + bias; with `accumulate`, output += input W^T + bias.
  // input [>= rows, inputs] of the layer's dtype, output [>= rows, outputs] float, contiguous.
  struct Operands {
    const at::Tensor& input;
    at::Tensor& output;
    int64_t rows;
    bool accumulate = false;
    // [>= rows, outputs] float, whose content has no meaning: needed to accumulate off the CPU,
    // where LibTorch may multiply.
    at::Tensor* scratch = nullptr;
  };
  // Allocates nothing on CUDA.
  void Forward(const KernelContext& context, const Operands& operands) const;

  // Appends what Forward multiplies to a list for kernels/linear. Not for LibTorch's tensors; of
  // int8 codes, the bias is left out.
  struct RawOperands {
    const void* input;
    float* output;
    int64_t rows;
    bool accumulate = false;
  };
  void AppendProducts(const RawOperands& operands, std::vector<LinearParams>* products) const;

  int64_t outputs() const { return outputs_; }

 private:
  void ForwardTorch(const Operands& operands) const;

  int64_t outputs_ = 0;
  std::vector<LinearWeight> weights_;  // Each holds one of the two below.
  std::vector<PackedWeight> packed_;
  Int8Matrix int8_;
  at::Tensor weight_;  // Instead of them.
  at::Tensor bias_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_LINEAR_LAYER_H_
