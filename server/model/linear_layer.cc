// See linear_layer.h.
#include "server/model/linear_layer.h"

#include <ATen/ATen.h>

#include <utility>

#include "kernels/check.h"
#include "kernels/linear/int8_linear.h"
#include "server/model/device.h"

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

LinearLayer::LinearLayer(std::vector<PackedWeight> parts, at::Tensor bias)
    : parts_(std::move(parts)), bias_(std::move(bias)) {
  for (const PackedWeight& part : parts_) outputs_ += part.outputs();
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

LinearLayer::LinearLayer(at::Tensor weight, at::Tensor bias)
    : outputs_(weight.size(0)), weight_(std::move(weight)), bias_(std::move(bias)) {
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

LinearLayer::LinearLayer(Int8Matrix weight, at::Tensor bias)
    : outputs_(weight.codes.size(0)), int8_(std::move(weight)), bias_(std::move(bias)) {
  STRUCTATTN_CHECK(!bias_.defined() || bias_.numel() == outputs_);
}

void LinearLayer::Forward(const KernelContext& context, const Operands& operands) const {
  if (int8_.codes.defined()) return ForwardInt8(context, operands);
  if (context.device != DeviceKind::kCpu) return ForwardTorch(operands);
  float* output = operands.output.data_ptr<float>();
  const float* bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
  for (const PackedWeight& part : parts_) {
    LinearCpu(*context.pool, {.input = operands.input.const_data_ptr(),
                              .weight = &part,
                              .bias = bias,
                              .residual = operands.product != nullptr ? output : nullptr,
                              .output = output,
                              .rows = operands.rows,
                              .output_stride = outputs_});
    output += part.outputs();
    if (bias != nullptr) bias += part.outputs();
  }
}

void LinearLayer::ForwardInt8(const KernelContext& context, const Operands& operands) const {
  Int8Linear(context, {.input = operands.input.const_data_ptr(),
                       .input_dtype = ToDType(operands.input.scalar_type()),
                       .codes = int8_.codes.const_data_ptr<int8_t>(),
                       .scales = static_cast<const Float16*>(int8_.scales.const_data_ptr()),
                       .output = operands.output.data_ptr<float>(),
                       .accumulate = operands.product != nullptr,
                       .rows = operands.rows,
                       .outputs = outputs_,
                       .inputs = int8_.codes.size(1)});
  if (bias_.defined()) operands.output.narrow(0, 0, operands.rows).add_(bias_);
}

void LinearLayer::ForwardTorch(const Operands& operands) const {
  const at::Tensor input = operands.input.narrow(0, 0, operands.rows);
  at::Tensor output = operands.output.narrow(0, 0, operands.rows);
  if (operands.product == nullptr) {
    Multiply(input, weight_, output);
  } else {
    at::Tensor product = operands.product->narrow(0, 0, operands.rows);
    Multiply(input, weight_, product);
    output.add_(product);
  }
  if (bias_.defined()) output.add_(bias_);
}

}  // namespace structattn
