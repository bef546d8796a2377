// See mixture.h, which has the shapes.
#include "server/model/mixture.h"

#include <ATen/ATen.h>

#include "kernels/activation/silu_mul.h"
#include "server/model/device.h"

namespace structattn {
namespace {

at::Tensor Empty(int64_t rows, int64_t columns, c10::ScalarType type) {
  return at::empty({rows, columns}, at::dtype(type));
}

// Row `row` of a contiguous matrix.
const void* RowOf(const at::Tensor& matrix, int64_t row) {
  return static_cast<const char*>(matrix.const_data_ptr()) +
         row * matrix.size(1) * matrix.element_size();
}
float* FloatRowOf(at::Tensor& matrix, int64_t row) {
  return matrix.data_ptr<float>() + row * matrix.size(1);
}

}  // namespace

MixtureRunner::MixtureRunner(const MixtureConfig& shape, int64_t hidden_size, DType dtype)
    : shape_(shape), hidden_size_(hidden_size), dtype_(dtype) {}

void MixtureRunner::Reserve(int64_t rows) {
  const bool shares = shape_.shared_expert_size > 0;
  const int64_t pairs = rows * shape_.chosen;
  const c10::ScalarType stored = ToScalarType(dtype_);
  logits_ = Empty(rows, shape_.experts + (shares ? 1 : 0), at::kFloat);
  ids_ = Empty(rows, shape_.chosen, at::kInt);
  weights_ = Empty(rows, shape_.chosen, at::kFloat);
  gathered_ = Empty(pairs, hidden_size_, stored);
  gate_up_ = Empty(pairs, 2 * shape_.expert_size, at::kFloat);
  activated_ = Empty(pairs, shape_.expert_size, stored);
  outputs_ = Empty(pairs, hidden_size_, at::kFloat);
  if (!shares) return;
  shared_gate_up_ = Empty(rows, 2 * shape_.shared_expert_size, at::kFloat);
  shared_activated_ = Empty(rows, shape_.shared_expert_size, stored);
  shared_output_ = Empty(rows, hidden_size_, at::kFloat);
}

void MixtureRunner::Route(const KernelContext& context, const MixtureWeights& weights,
                          const Operands& operands) {
  weights.router.Forward(context,
                         {.input = operands.normed, .output = logits_, .rows = operands.rows});
  const ChooseExpertsParams choice = {.logits = logits_.const_data_ptr<float>(),
                                      .stride = logits_.size(1),
                                      .rows = operands.rows,
                                      .experts = static_cast<int32_t>(shape_.experts),
                                      .chosen = static_cast<int32_t>(shape_.chosen),
                                      .normalizes = shape_.normalizes_weights,
                                      .ids = ids_.data_ptr<int32_t>(),
                                      .weights = weights_.data_ptr<float>()};
  ChooseExperts(*context.pool, choice);
  SortByExpert(choice, &pairs_);
  GatherRows(*context.pool, {.from = operands.normed.const_data_ptr(),
                             .rows = pairs_.rows.data(),
                             .to = gathered_.data_ptr(),
                             .count = operands.rows * shape_.chosen,
                             .row_bytes = hidden_size_ * static_cast<int64_t>(ByteSize(dtype_))});
}

void MixtureRunner::RunExperts(const KernelContext& context, const MixtureWeights& weights,
                               const Operands& operands) {
  const auto activate = [&](const at::Tensor& gate_up, at::Tensor& activated, int64_t rows) {
    SiluMul(context, {.gate_up = gate_up.const_data_ptr<float>(),
                      .output = activated.data_ptr(),
                      .output_dtype = dtype_,
                      .rows = rows,
                      .columns = activated.size(1)});
  };
  products_.clear();
  if (weights.shared.has_value()) {
    weights.shared->gate_up.AppendProducts({.input = operands.normed.const_data_ptr(),
                                            .output = shared_gate_up_.data_ptr<float>(),
                                            .rows = operands.rows},
                                           &products_);
  }
  for (const auto& [expert, begin, end] : pairs_.ranges) {
    weights.experts[expert].gate_up.AppendProducts({.input = RowOf(gathered_, begin),
                                                    .output = FloatRowOf(gate_up_, begin),
                                                    .rows = end - begin},
                                                   &products_);
  }
  LinearMany(context, products_);

  products_.clear();
  if (weights.shared.has_value()) {
    activate(shared_gate_up_, shared_activated_, operands.rows);
    weights.shared->down.AppendProducts({.input = shared_activated_.const_data_ptr(),
                                         .output = shared_output_.data_ptr<float>(),
                                         .rows = operands.rows},
                                        &products_);
  }
  activate(gate_up_, activated_, operands.rows * shape_.chosen);
  for (const auto& [expert, begin, end] : pairs_.ranges) {
    weights.experts[expert].down.AppendProducts({.input = RowOf(activated_, begin),
                                                 .output = FloatRowOf(outputs_, begin),
                                                 .rows = end - begin},
                                                &products_);
  }
  LinearMany(context, products_);
}

void MixtureRunner::Run(const KernelContext& context, const MixtureWeights& weights,
                        const Operands& operands) {
  Route(context, weights, operands);
  RunExperts(context, weights, operands);
  const bool shares = weights.shared.has_value();
  SumExperts(*context.pool,
             {.outputs = outputs_.const_data_ptr<float>(),
              .places = pairs_.places.data(),
              .weights = weights_.const_data_ptr<float>(),
              .chosen = static_cast<int32_t>(shape_.chosen),
              .shared = shares ? shared_output_.const_data_ptr<float>() : nullptr,
              .shared_gate = shares ? logits_.const_data_ptr<float>() + shape_.experts : nullptr,
              .gate_stride = logits_.size(1),
              .sum = operands.hidden.data_ptr<float>(),
              .rows = operands.rows,
              .columns = hidden_size_});
}

}  // namespace structattn
