// See linear_layer.h.
#include "server/model/linear_layer.h"

#include <ATen/ATen.h>

#include <utility>

#include "kernels/check.h"

namespace structattn {
namespace {

// output = input weight^T in float. bfloat16 and float16 products are asked for in float, so that
// all devices round alike; LibTorch has those on CUDA only, so the emulated device widens first,
// which is exact.
void Multiply(const at::Tensor& input, const at::Tensor& weight, at::Tensor& output) {
  if (weight.scalar_type() == at::kFloat) {
    at::mm_out(output, input, weight.t());
  } else if (weight.is_cuda()) {
    at::mm_out(output, input, weight.t(), at::kFloat);
  } else {
    at::mm_out(output, input.to(at::kFloat), weight.to(at::kFloat).t());
  }
}

}  // namespace

LinearLayer::LinearLayer(std::vector<PackedWeight> packed, at::Tensor bias)
    : packed_(std::move(packed)), bias_(std::move(bias)) {
  for (const PackedWeight& weight : packed_) {
    weights_.push_back(weight.view);
    outputs_ += weight.view.outputs;
  }
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

LinearLayer::LinearLayer(at::Tensor weight, at::Tensor bias)
    : outputs_(weight.size(0)), weight_(std::move(weight)), bias_(std::move(bias)) {
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

LinearLayer::LinearLayer(Int8Matrix weight, DType input_dtype, at::Tensor bias)
    : outputs_(weight.codes.size(0)), int8_(std::move(weight)), bias_(std::move(bias)) {
  weights_.push_back({.kind = WeightKind::kInt8,
                      .input_dtype = input_dtype,
                      .outputs = outputs_,
                      .inputs = int8_.codes.size(1),
                      .codes = int8_.codes.const_data_ptr<int8_t>(),
                      .scales = static_cast<const Float16*>(int8_.scales.const_data_ptr())});
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

void LinearLayer::Forward(const KernelContext& context, const Operands& operands) const {
  if (weight_.defined()) return ForwardTorch(operands);
  std::vector<LinearParams> products;
  AppendProducts({.input = operands.input.const_data_ptr(),
                  .output = operands.output.data_ptr<float>(),
                  .rows = operands.rows,
                  .accumulate = operands.accumulate},
                 &products);
  for (const LinearParams& product : products) Linear(context, product);
  const bool is_int8 = packed_.empty();
  if (bias_.defined() && is_int8) operands.output.narrow(0, 0, operands.rows).add_(bias_);
}

void LinearLayer::AppendProducts(const RawOperands& operands,
                                 std::vector<LinearParams>* products) const {
  const bool adds_bias = !packed_.empty() && bias_.defined();
  int64_t first = 0;
  for (const LinearWeight& weight : weights_) {
    products->push_back({.input = operands.input,
                         .weight = weight,
                         .bias = adds_bias ? bias_.const_data_ptr<float>() + first : nullptr,
                         .output = operands.output + first,
                         .accumulate = operands.accumulate,
                         .rows = operands.rows,
                         .output_stride = outputs_});
    first += weight.outputs;
  }
}

void LinearLayer::ForwardTorch(const Operands& operands) const {
  const at::Tensor input = operands.input.narrow(0, 0, operands.rows);
  at::Tensor output = operands.output.narrow(0, 0, operands.rows);
  if (operands.accumulate) {
    at::Tensor scratch = operands.scratch->narrow(0, 0, operands.rows);
    Multiply(input, weight_, scratch);
    output.add_(scratch);
  } else {
    Multiply(input, weight_, output);
  }
  if (bias_.defined()) output.add_(bias_);
}

}  // namespace structattn
