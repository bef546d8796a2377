// See linear_layer.h.
#include "server/model/linear_layer.h"

#include <ATen/ATen.h>

#include "kernels/check.h"

namespace structattn {
namespace {

at::Tensor ToDeviceTensor(const MatrixView& view, DType dtype) {
  const at::Tensor host = at::from_blob(const_cast<void*>(view.data), {view.rows, view.columns},
                                        ToScalarType(view.dtype));
  return host.to(at::TensorOptions().device(at::kCUDA).dtype(ToScalarType(dtype)));
}

}  // namespace

at::ScalarType ToScalarType(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return at::kFloat;
    case DType::kBfloat16:
      return at::kBFloat16;
    case DType::kFloat16:
      return at::kHalf;
  }
  return at::kFloat;
}

c10::Device ToTorchDevice(DeviceKind device) {
  return device == DeviceKind::kCuda ? c10::Device(at::kCUDA, 0) : c10::Device(at::kCPU);
}

LinearLayer::LinearLayer(const KernelContext& context, std::span<const MatrixView> weights,
                         std::span<const float> bias, const PackTarget& target) {
  for (const MatrixView& view : weights) outputs_ += view.rows;
  STRUCTATTN_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == outputs_);
  if (context.device == DeviceKind::kCpu) {
    packed_ = PackedWeight::Pack(weights, target);
  } else {
    std::vector<at::Tensor> parts;
    for (const MatrixView& view : weights) parts.push_back(ToDeviceTensor(view, target.dtype));
    weight_ = at::cat(parts, 0);
  }
  if (!bias.empty()) {
    bias_ = at::from_blob(const_cast<float*>(bias.data()), {outputs_}, at::kFloat)
                .clone()
                .to(ToTorchDevice(context.device));
  }
}

void LinearLayer::Forward(const KernelContext& context, const Operands& operands) const {
  if (context.device == DeviceKind::kCuda) return ForwardTorch(operands);
  float* output = operands.output.data_ptr<float>();
  LinearCpu(*context.pool, {.input = operands.input.const_data_ptr(),
                            .weight = &packed_,
                            .bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr,
                            .residual = operands.accumulate ? output : nullptr,
                            .output = output,
                            .rows = operands.rows});
}

// bfloat16 and float16 products are asked for in float, so that both devices round alike.
void LinearLayer::ForwardTorch(const Operands& operands) const {
  const at::Tensor input = operands.input.narrow(0, 0, operands.rows);
  at::Tensor output = operands.output.narrow(0, 0, operands.rows);
  const at::Tensor product = weight_.scalar_type() == at::kFloat
                                 ? at::mm(input, weight_.t())
                                 : at::mm(input, weight_.t(), at::kFloat);
  if (operands.accumulate) {
    output.add_(product);
  } else {
    output.copy_(product);
  }
  if (bias_.defined()) output.add_(bias_);
}

}  // namespace structattn
