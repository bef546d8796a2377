// See transformer.h. Every op is one call on one of the kernels, and the header has the shapes.
#include "server/model/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/check.h"
#include "kernels/cuda/runtime.h"
#include "kernels/embedding/embedding.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "server/model/device.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

const float* FloatsOrNull(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

at::Tensor Floats(at::IntArrayRef sizes, const Device& device) {
  return at::empty(sizes, at::TensorOptions(ToTorchDevice(device)).dtype(at::kFloat));
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const TransformerOptions& options,
                         std::unique_ptr<ThreadPool> pool)
    : config_(config),
      options_(options),
      padding_(config.head_dim),
      pool_(std::move(pool)),
      stream_(NewStream(options.device)),
      context_{.device = options.device.kind,
               .pool = pool_.get(),
               .stream = stream_.has_value() ? stream_->native_handle() : nullptr},
      uploader_(options.device, RotaryAngles(config.rope, config.head_dim, padding_.padded_dim())) {
  if (config_.mixture.has_value()) {
    mixture_.emplace(*config_.mixture, config_.hidden_size, options.dtype);
  }
}

void Transformer::Load(const Checkpoint& checkpoint, const std::function<void(double)>& progress) {
  const c10::InferenceMode inference;
  const c10::OptionalStreamGuard on_stream(stream_);
  weights_ = LoadWeights(checkpoint, options_, context_, progress);
  for (LayerWeights& layer : weights_.layers) {
    layer.query_norm = padding_.NormWeight(layer.query_norm);
    layer.key_norm = padding_.NormWeight(layer.key_norm);
  }
}

Tiling Transformer::tiling() const {
  Tiling tiling =
      AttentionTiling(options_.device.kind, static_cast<int>(config_.heads / config_.kv_heads));
  tiling.window = config_.sliding_window;
  return tiling;
}

bool Transformer::usable() const {
  return options_.device.kind != DeviceKind::kCuda || CudaContextWorks(options_.device.index);
}

void Transformer::Reserve(const StepShape& shape) {
  bool moved = uploader_.Reserve(shape);
  if (shape.rows > scratch_.rows) {
    ReserveRows(shape.rows);
    moved = true;
  }
  if (shape.logit_rows > scratch_.logit_rows) {
    scratch_.logit_rows = shape.logit_rows;
    scratch_.selected = Floats({shape.logit_rows, config_.hidden_size}, options_.device);
    if (options_.device.kind != DeviceKind::kCpu) {
      scratch_.logits = Floats({shape.logit_rows, config_.vocab_size}, options_.device);
    }
    moved = true;
  }
  const int32_t partials = std::max(shape.work.partials, shape.windowed_work.partials);
  if (partials > scratch_.partials) {
    scratch_.partials = partials;
    scratch_.attention_partials =
        Floats({PartialFloats(partials, static_cast<int32_t>(config_.heads),
                              static_cast<int32_t>(padding_.padded_dim()))},
               options_.device);
    moved = true;
  }
  if (moved) graphs_.Clear();
}

void Transformer::ReserveRows(int64_t rows) {
  const Device& device = options_.device;
  const auto stored = [this, rows](int64_t columns) {
    return at::empty(
        {rows, columns},
        at::TensorOptions(ToTorchDevice(options_.device)).dtype(ToScalarType(options_.dtype)));
  };
  const int64_t all_heads = config_.heads + 2 * config_.kv_heads;
  const int64_t padded_dim = padding_.padded_dim();
  Scratch& w = scratch_;
  w.rows = rows;
  w.hidden = Floats({rows, config_.hidden_size}, device);
  w.normed = stored(config_.hidden_size);
  w.projected = Floats({rows, all_heads * config_.head_dim}, device);
  w.qkv = padding_.any() ? Floats({rows, all_heads * padded_dim}, device).zero_() : w.projected;
  w.query = Floats({rows, config_.heads * padded_dim}, device);
  w.attention = stored(config_.heads * padded_dim);
  w.attended = padding_.any() ? stored(config_.heads * config_.head_dim) : w.attention;
  w.gate_up = Floats({rows, 2 * config_.intermediate_size}, device);
  w.activated = stored(config_.intermediate_size);
  w.linear = Floats({device.kind == DeviceKind::kCpu ? 0 : rows, config_.hidden_size}, device);
  if (mixture_.has_value()) mixture_->Reserve(rows);
}

void Transformer::Normalize(const at::Tensor& input, const at::Tensor& weight, at::Tensor& output,
                            int64_t rows) const {
  RmsNorm(context_, {.input = input.const_data_ptr<float>(),
                     .weight = weight.const_data_ptr<float>(),
                     .output = output.data_ptr(),
                     .output_dtype = options_.dtype,
                     .rows = rows,
                     .columns = config_.hidden_size,
                     .epsilon = static_cast<float>(config_.rms_norm_epsilon)});
}

void Transformer::RunAttention(size_t index, const StepInputs& inputs) {
  Scratch& w = scratch_;
  const LayerWeights& layer = weights_.layers[index];
  const KvLayerView& kv = kv_.layers[index];
  const WorkInputs& work = config_.HasWindow(index) ? inputs.windowed_work : inputs.work;
  const int64_t rows = inputs.shape.rows;
  Normalize(w.hidden, layer.attention_norm, w.normed, rows);
  layer.qkv.Forward(context_, {.input = w.normed, .output = w.projected, .rows = rows});
  padding_.Pad(w.projected, w.qkv, rows);
  RopeKvWrite(context_, {.qkv = w.qkv.const_data_ptr<float>(),
                         .query = w.query.data_ptr<float>(),
                         .cosine = inputs.cosine,
                         .sine = inputs.sine,
                         .query_norm = FloatsOrNull(layer.query_norm),
                         .key_norm = FloatsOrNull(layer.key_norm),
                         .epsilon = padding_.NormEpsilon(config_.rms_norm_epsilon),
                         .slots = inputs.slots,
                         .kv = kv,
                         .heads = static_cast<int32_t>(config_.heads),
                         .tokens = inputs.shape.rows});
  Attention(context_,
            {.query = w.query.const_data_ptr<float>(),
             .output = w.attention.data_ptr(),
             .output_dtype = options_.dtype,
             .kv = kv,
             .heads = static_cast<int32_t>(config_.heads),
             .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
             .block_tables = inputs.block_tables,
             .block_table_stride = inputs.shape.block_table_stride,
             .tiles = work.tiles,
             .tile_count = work.shape.tiles,
             .intervals = work.intervals,
             .generated = work.generated,
             .generated_count = work.shape.generated,
             .splits = work.splits,
             .split_count = work.shape.splits,
             .partials = w.attention_partials.defined() ? w.attention_partials.data_ptr<float>()
                                                        : nullptr});
  padding_.Strip(w.attention, w.attended, rows);
  layer.attention_output.Forward(context_, {.input = w.attended,
                                            .output = w.hidden,
                                            .rows = rows,
                                            .accumulate = true,
                                            .scratch = &w.linear});
}

void Transformer::RunMlp(const LayerWeights& layer, at::Tensor& hidden, int64_t rows) {
  Scratch& w = scratch_;
  Normalize(hidden, layer.mlp_norm, w.normed, rows);
  if (layer.mixture.has_value()) {
    return mixture_->Run(context_, *layer.mixture,
                         {.normed = w.normed, .hidden = hidden, .rows = rows});
  }
  layer.gate_up.Forward(context_, {.input = w.normed, .output = w.gate_up, .rows = rows});
  SiluMul(context_, {.gate_up = w.gate_up.const_data_ptr<float>(),
                     .output = w.activated.data_ptr(),
                     .output_dtype = options_.dtype,
                     .rows = rows,
                     .columns = config_.intermediate_size});
  layer.mlp_down.Forward(context_, {.input = w.activated,
                                    .output = hidden,
                                    .rows = rows,
                                    .accumulate = true,
                                    .scratch = &w.linear});
}

// After the last attention, a row matters to itself alone, so only the rows with logits go on.
void Transformer::FinishLogitRows(std::span<const int32_t> logit_rows, at::Tensor& logits) {
  const int64_t rows = static_cast<int64_t>(logit_rows.size());
  if (rows == 0) return;
  Embedding(context_, {.table = scratch_.hidden.const_data_ptr(),  // It gathers rows here, too.
                       .table_dtype = DType::kFloat32,
                       .ids = logit_rows.data(),
                       .output = scratch_.selected.data_ptr<float>(),
                       .rows = rows,
                       .columns = config_.hidden_size});
  RunMlp(weights_.layers.back(), scratch_.selected, rows);
  Normalize(scratch_.selected, weights_.final_norm, scratch_.normed, rows);
  weights_.output.Forward(context_, {.input = scratch_.normed, .output = logits, .rows = rows});
}

void Transformer::RunStep(const StepInputs& inputs, at::Tensor& logits) {
  Embedding(context_, {.table = weights_.embedding.const_data_ptr(),
                       .table_dtype = options_.dtype,
                       .ids = inputs.token_ids,
                       .output = scratch_.hidden.data_ptr<float>(),
                       .rows = inputs.shape.rows,
                       .columns = config_.hidden_size});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    if (i > 0) RunMlp(weights_.layers[i - 1], scratch_.hidden, inputs.shape.rows);
    RunAttention(i, inputs);
  }
  FinishLogitRows({inputs.logit_rows, static_cast<size_t>(inputs.shape.logit_rows)}, logits);
}

absl::StatusOr<KvShape> Transformer::AllocateKv(int64_t bytes, int32_t block_size) {
  STRUCTATTN_CHECK(kv_.layers.empty());
  STRUCTATTN_ASSIGN_OR_RETURN(kv_, AllocateKvCache({.layers = config_.layers,
                                                    .kv_heads = config_.kv_heads,
                                                    .head_dim = padding_.padded_dim(),
                                                    .block_size = block_size,
                                                    .dtype = options_.dtype,
                                                    .device = options_.device,
                                                    .memory_bytes = bytes}));
  return kv_.shape;
}

void Transformer::Forward(const StepBatch& batch, std::span<float> logits) {
  STRUCTATTN_CHECK(static_cast<int64_t>(kv_.layers.size()) == config_.layers);
  STRUCTATTN_CHECK(logits.size() >= batch.logit_rows.size() * config_.vocab_size);
  const c10::InferenceMode inference;
  const c10::OptionalStreamGuard on_stream(stream_);
  const bool on_cpu = options_.device.kind == DeviceKind::kCpu;
  const StepShape exact = ShapeOf(batch);
  const bool recordable = options_.step_graphs && !on_cpu && IsDecodeShape(exact);
  const StepShape shape = recordable ? PaddedShape(exact) : exact;
  Reserve(shape);
  const StepInputs inputs = uploader_.Upload(batch, shape);
  at::Tensor host_logits =
      at::from_blob(logits.data(), {exact.logit_rows, config_.vocab_size}, at::kFloat);
  if (on_cpu) return RunStep(inputs, host_logits);
  if (recordable) {
    const std::function<void()> step = [this, inputs] { RunStep(inputs, scratch_.logits); };
    graphs_.Run(context_, {.shape = shape, .kv = kv_.layers.data(), .step = step});
  } else {
    RunStep(inputs, scratch_.logits);
  }
  if (exact.logit_rows > 0) {
    host_logits.copy_(scratch_.logits.narrow(0, 0, exact.logit_rows));  // Waits for the step.
  }
}

void Transformer::Logits(std::span<const int32_t> rows, std::span<float> logits) {
  const int64_t count = static_cast<int64_t>(rows.size());
  STRUCTATTN_CHECK(count <= scratch_.rows);
  STRUCTATTN_CHECK(logits.size() >= rows.size() * config_.vocab_size);
  const c10::InferenceMode inference;
  const c10::OptionalStreamGuard on_stream(stream_);
  Reserve({.logit_rows = static_cast<int32_t>(count)});
  at::Tensor host_logits = at::from_blob(logits.data(), {count, config_.vocab_size}, at::kFloat);
  if (options_.device.kind == DeviceKind::kCpu) return FinishLogitRows(rows, host_logits);
  const at::Tensor host_rows = at::from_blob(const_cast<int32_t*>(rows.data()), {count}, at::kInt);
  at::Tensor device_rows =
      at::empty({count}, at::dtype(at::kInt).device(ToTorchDevice(options_.device)));
  device_rows.copy_(host_rows);
  FinishLogitRows({device_rows.const_data_ptr<int32_t>(), rows.size()}, scratch_.logits);
  host_logits.copy_(scratch_.logits.narrow(0, 0, count));
}

}  // namespace structattn
