// LoadWeights: from a checkpoint's named tensors to the stacked, packed weights of the transformer.
#include <ATen/ATen.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/device.h"
#include "server/model/transformer.h"
#include "server/model/weight_upload.h"

namespace structattn {
namespace {

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, DType dtype, const KernelContext& context)
      : checkpoint_(checkpoint), dtype_(dtype), context_(context) {
    if (!on_cpu()) upload_.emplace(context.device);
  }

  at::Tensor Vector(const std::string& name) { return ToDevice(HostFloats(name)); }

  at::Tensor Matrix(const std::string& name) {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    if (!on_cpu()) return upload_->Stack({&matrix.view, 1}, dtype_);
    return AsTensor(matrix.view).to(ToScalarType(dtype_), /*non_blocking=*/false, /*copy=*/true);
  }

  // The layer's matrices of these projections, stacked, with their biases when there are any.
  LinearLayer Linear(const std::string& prefix, std::initializer_list<const char*> projections,
                     bool has_bias) {
    std::vector<LoadedMatrix> matrices;
    std::vector<MatrixView> views;
    std::vector<at::Tensor> biases;
    for (const char* projection : projections) {
      matrices.push_back(
          checkpoint_.Read(absl::StrCat(prefix, projection, ".weight"), context_.pool));
      views.push_back(matrices.back().view);
      if (has_bias) biases.push_back(HostFloats(absl::StrCat(prefix, projection, ".bias")));
    }
    const at::Tensor bias = has_bias ? ToDevice(at::cat(biases)) : at::Tensor();
    if (on_cpu()) return LinearLayer(views, bias, PackHere());
    return LinearLayer(upload_->Stack(views, dtype_), bias);
  }

  // Of tied embeddings: the CPU packs a copy, other devices multiply with the table itself.
  LinearLayer Output(const std::string& name, const at::Tensor& tied_embedding) {
    if (!on_cpu() && tied_embedding.defined()) return LinearLayer(tied_embedding, {});
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    if (on_cpu()) return LinearLayer({&matrix.view, 1}, {}, PackHere());
    return LinearLayer(upload_->Stack({&matrix.view, 1}, dtype_), {});
  }

 private:
  static at::Tensor AsTensor(const MatrixView& view) {
    return at::from_blob(const_cast<void*>(view.data), {view.rows, view.columns},
                         ToScalarType(view.dtype));
  }

  PackTarget PackHere() { return {.dtype = dtype_, .pool = *context_.pool, .arena = arena_}; }

  bool on_cpu() const { return context_.device == DeviceKind::kCpu; }

  at::Tensor HostFloats(const std::string& name) const {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    return AsTensor(matrix.view).flatten().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }

  // A vector: too small to be worth staging.
  at::Tensor ToDevice(const at::Tensor& floats) const {
    return floats.to(ToTorchDevice(context_.device));
  }

  const Checkpoint& checkpoint_;
  const DType dtype_;
  const KernelContext& context_;
  std::optional<WeightUpload> upload_;  // Not on CPU.
  WeightArena arena_;                   // On CPU.
};

LayerWeights LoadLayer(WeightLoader& loader, const ModelConfig& config, int64_t index) {
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const std::string attention = absl::StrCat(prefix, "self_attn.");
  const std::string mlp = absl::StrCat(prefix, "mlp.");
  LayerWeights layer;
  layer.attention_norm = loader.Vector(absl::StrCat(prefix, "input_layernorm.weight"));
  if (config.qk_norm) {
    layer.query_norm = loader.Vector(absl::StrCat(attention, "q_norm.weight"));
    layer.key_norm = loader.Vector(absl::StrCat(attention, "k_norm.weight"));
  }
  layer.qkv = loader.Linear(attention, {"q_proj", "k_proj", "v_proj"}, config.qkv_bias);
  layer.attention_output = loader.Linear(attention, {"o_proj"}, config.output_bias);
  layer.mlp_norm = loader.Vector(absl::StrCat(prefix, "post_attention_layernorm.weight"));
  layer.gate_up = loader.Linear(mlp, {"gate_proj", "up_proj"}, config.mlp_bias);
  layer.mlp_down = loader.Linear(mlp, {"down_proj"}, config.mlp_bias);
  return layer;
}

}  // namespace

TransformerWeights LoadWeights(const Checkpoint& checkpoint, DType dtype,
                               const KernelContext& context,
                               const std::function<void(double)>& progress) {
  const ModelConfig& config = checkpoint.config();
  WeightLoader loader(checkpoint, dtype, context);
  TransformerWeights weights;
  weights.embedding = loader.Matrix("model.embed_tokens.weight");
  weights.final_norm = loader.Vector("model.norm.weight");
  weights.output = config.tied_embeddings
                       ? loader.Output("model.embed_tokens.weight", weights.embedding)
                       : loader.Output("lm_head.weight", {});
  for (int64_t i = 0; i < config.layers; ++i) {
    weights.layers.push_back(LoadLayer(loader, config, i));
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(config.layers));
  }
  return weights;
}

}  // namespace structattn
