// See transformer.h. Every op is one call on one of the kernels; shapes are in the header.
#include "server/model/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/check.h"
#include "kernels/embedding/embedding.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "server/model/device.h"

namespace structattn {
namespace {

const float* FloatsOrNull(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

// A host array as a tensor on `device`. On CPU it aliases the array, which outlives the step.
template <typename T>
at::Tensor Upload(std::span<const T> values, DeviceKind device) {
  const int64_t bytes = static_cast<int64_t>(values.size_bytes());
  const at::Tensor host = at::from_blob(const_cast<T*>(values.data()), {bytes}, at::kByte);
  return device == DeviceKind::kCpu ? host : host.to(ToTorchDevice(device));
}

template <typename T>
const T* Data(const at::Tensor& bytes) {
  return static_cast<const T*>(bytes.const_data_ptr());
}

}  // namespace

struct Transformer::StepInputs {
  int64_t rows = 0;
  int32_t tile_count = 0;
  int32_t block_table_stride = 0;
  std::vector<float> host_cosine;  // [rows, head_dim / 2]
  std::vector<float> host_sine;
  std::vector<int64_t> host_logit_rows;
  at::Tensor token_ids;
  at::Tensor slots;
  at::Tensor block_tables;
  at::Tensor tiles;
  at::Tensor intervals;
  at::Tensor cosine;
  at::Tensor sine;
};

Transformer::Transformer(const ModelConfig& config, DType dtype, std::unique_ptr<ThreadPool> pool,
                         DeviceKind device)
    : config_(config),
      dtype_(dtype),
      pool_(std::move(pool)),
      context_{.device = device, .pool = pool_.get()},
      inverse_frequencies_(InverseFrequencies(config)) {}

void Transformer::Load(const Checkpoint& checkpoint, const std::function<void(double)>& progress) {
  const c10::InferenceMode inference;
  weights_ = LoadWeights(checkpoint, dtype_, context_, progress);
}

void Transformer::Reserve(int64_t rows) {
  if (rows <= workspace_.rows) return;
  const at::TensorOptions floats =
      at::TensorOptions().device(ToTorchDevice(context_.device)).dtype(at::kFloat);
  const at::TensorOptions stored = floats.dtype(ToScalarType(dtype_));
  const int64_t query_columns = config_.heads * config_.head_dim;
  const int64_t kv_columns = config_.kv_heads * config_.head_dim;
  workspace_ = Workspace{
      .rows = rows,
      .hidden = at::empty({rows, config_.hidden_size}, floats),
      .normed = at::empty({rows, config_.hidden_size}, stored),
      .qkv = at::empty({rows, query_columns + 2 * kv_columns}, floats),
      .query = at::empty({rows, query_columns}, floats),
      .attention = at::empty({rows, query_columns}, stored),
      .gate_up = at::empty({rows, 2 * config_.intermediate_size}, floats),
      .activated = at::empty({rows, config_.intermediate_size}, stored),
  };
}

Transformer::StepInputs Transformer::Prepare(const StepBatch& batch) const {
  StepInputs inputs;
  inputs.rows = batch.tokens();
  inputs.tile_count = static_cast<int32_t>(batch.work.tiles.size());
  inputs.block_table_stride = batch.block_table_stride;
  const size_t half = inverse_frequencies_.size();
  inputs.host_cosine.resize(batch.positions.size() * half);
  inputs.host_sine.resize(batch.positions.size() * half);
  for (size_t t = 0; t < batch.positions.size(); ++t) {
    const float position = static_cast<float>(batch.positions[t]);
    for (size_t i = 0; i < half; ++i) {
      const float angle = position * inverse_frequencies_[i];
      inputs.host_cosine[t * half + i] = std::cos(angle);
      inputs.host_sine[t * half + i] = std::sin(angle);
    }
  }
  inputs.host_logit_rows.assign(batch.logit_rows.begin(), batch.logit_rows.end());
  const DeviceKind device = context_.device;
  inputs.token_ids = Upload<int32_t>(batch.token_ids, device);
  inputs.slots = Upload<int64_t>(batch.slots, device);
  inputs.block_tables = Upload<int32_t>(batch.block_tables, device);
  inputs.tiles = Upload<QueryTile>(batch.work.tiles, device);
  inputs.intervals = Upload<KeyInterval>(batch.work.intervals, device);
  inputs.cosine = Upload<float>(inputs.host_cosine, device);
  inputs.sine = Upload<float>(inputs.host_sine, device);
  return inputs;
}

void Transformer::Normalize(const at::Tensor& input, const at::Tensor& weight, at::Tensor& output,
                            int64_t rows) const {
  RmsNorm(context_, {.input = input.const_data_ptr<float>(),
                     .weight = weight.const_data_ptr<float>(),
                     .output = output.data_ptr(),
                     .output_dtype = dtype_,
                     .rows = rows,
                     .columns = config_.hidden_size,
                     .epsilon = static_cast<float>(config_.rms_norm_epsilon)});
}

void Transformer::RunAttention(const LayerWeights& layer, const KvLayerView& kv,
                               const StepInputs& inputs) {
  Workspace& w = workspace_;
  Normalize(w.hidden, layer.attention_norm, w.normed, inputs.rows);
  layer.qkv.Forward(context_, {.input = w.normed, .output = w.qkv, .rows = inputs.rows});
  RopeKvWrite(context_, {.qkv = w.qkv.const_data_ptr<float>(),
                         .query = w.query.data_ptr<float>(),
                         .cosine = Data<float>(inputs.cosine),
                         .sine = Data<float>(inputs.sine),
                         .query_norm = FloatsOrNull(layer.query_norm),
                         .key_norm = FloatsOrNull(layer.key_norm),
                         .epsilon = static_cast<float>(config_.rms_norm_epsilon),
                         .slots = Data<int64_t>(inputs.slots),
                         .kv = kv,
                         .heads = static_cast<int32_t>(config_.heads),
                         .tokens = inputs.rows});
  Attention(context_,
            {.query = w.query.const_data_ptr<float>(),
             .output = w.attention.data_ptr(),
             .output_dtype = dtype_,
             .kv = kv,
             .heads = static_cast<int32_t>(config_.heads),
             .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
             .block_tables = Data<int32_t>(inputs.block_tables),
             .block_table_stride = inputs.block_table_stride,
             .tiles = Data<QueryTile>(inputs.tiles),
             .tile_count = inputs.tile_count,
             .intervals = Data<KeyInterval>(inputs.intervals)});
  layer.attention_output.Forward(
      context_,
      {.input = w.attention, .output = w.hidden, .rows = inputs.rows, .accumulate = true});
}

void Transformer::RunMlp(const LayerWeights& layer, int64_t rows) {
  Workspace& w = workspace_;
  Normalize(w.hidden, layer.mlp_norm, w.normed, rows);
  layer.gate_up.Forward(context_, {.input = w.normed, .output = w.gate_up, .rows = rows});
  SiluMul(context_, {.gate_up = w.gate_up.const_data_ptr<float>(),
                     .output = w.activated.data_ptr(),
                     .output_dtype = dtype_,
                     .rows = rows,
                     .columns = config_.intermediate_size});
  layer.mlp_down.Forward(
      context_, {.input = w.activated, .output = w.hidden, .rows = rows, .accumulate = true});
}

void Transformer::ComputeLogits(const StepInputs& inputs, std::span<float> logits) {
  const int64_t rows = static_cast<int64_t>(inputs.host_logit_rows.size());
  if (rows == 0) return;
  const at::Tensor index =
      at::from_blob(const_cast<int64_t*>(inputs.host_logit_rows.data()), {rows}, at::kLong)
          .to(ToTorchDevice(context_.device));
  const at::Tensor selected = at::index_select(workspace_.hidden, 0, index);
  Normalize(selected, weights_.final_norm, workspace_.normed, rows);
  at::Tensor result = at::from_blob(logits.data(), {rows, config_.vocab_size}, at::kFloat);
  if (context_.device == DeviceKind::kCpu) {
    weights_.output.Forward(context_, {.input = workspace_.normed, .output = result, .rows = rows});
    return;
  }
  at::Tensor device_logits =
      at::empty({rows, config_.vocab_size}, selected.options().dtype(at::kFloat));
  weights_.output.Forward(context_,
                          {.input = workspace_.normed, .output = device_logits, .rows = rows});
  result.copy_(device_logits);
}

void Transformer::Forward(const StepBatch& batch, std::span<const KvLayerView> kv,
                          std::span<float> logits) {
  STRUCTATTN_CHECK(static_cast<int64_t>(kv.size()) == config_.layers);
  STRUCTATTN_CHECK(logits.size() >= batch.logit_rows.size() * config_.vocab_size);
  const c10::InferenceMode inference;
  if (context_.device == DeviceKind::kCuda) context_.stream = CurrentCudaStream();
  Reserve(batch.tokens());
  const StepInputs inputs = Prepare(batch);
  Embedding(context_, {.table = weights_.embedding.const_data_ptr(),
                       .table_dtype = dtype_,
                       .ids = Data<int32_t>(inputs.token_ids),
                       .output = workspace_.hidden.data_ptr<float>(),
                       .rows = inputs.rows,
                       .columns = config_.hidden_size});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    RunAttention(weights_.layers[i], kv[i], inputs);
    RunMlp(weights_.layers[i], inputs.rows);
  }
  ComputeLogits(inputs, logits);
}

}  // namespace structattn
