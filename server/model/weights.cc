// LoadWeights: from a checkpoint's named tensors to the stacked, packed weights of the transformer.
#include <ATen/ATen.h>

#include <cstring>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/model/transformer.h"

namespace structattn {
namespace {

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, DType dtype, const KernelContext& context)
      : checkpoint_(checkpoint), dtype_(dtype), context_(context) {}

  at::Tensor Vector(const std::string& name) const {
    return HostFloats(name).to(ToTorchDevice(context_.device));
  }

  at::Tensor Matrix(const std::string& name) const {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    return AsTensor(matrix.view)
        .to(at::TensorOptions().device(ToTorchDevice(context_.device)).dtype(ToScalarType(dtype_)),
            /*non_blocking=*/false, /*copy=*/true);
  }

  // The layer's matrices of these projections, stacked, with their biases when there are any.
  LinearLayer Linear(const std::string& prefix, std::initializer_list<const char*> projections,
                     bool has_bias) {
    std::vector<LoadedMatrix> matrices;
    std::vector<MatrixView> views;
    std::vector<float> bias;
    for (const char* projection : projections) {
      matrices.push_back(
          checkpoint_.Read(absl::StrCat(prefix, projection, ".weight"), context_.pool));
      views.push_back(matrices.back().view);
      if (!has_bias) continue;
      const at::Tensor part = HostFloats(absl::StrCat(prefix, projection, ".bias"));
      const float* values = part.const_data_ptr<float>();
      bias.insert(bias.end(), values, values + part.numel());
    }
    return LinearLayer(context_, views, bias, Target());
  }

  LinearLayer Output(const std::string& name) {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    return LinearLayer(context_, {&matrix.view, 1}, {}, Target());
  }

 private:
  PackTarget Target() { return {.dtype = dtype_, .pool = *context_.pool, .arena = arena_}; }

  static at::Tensor AsTensor(const MatrixView& view) {
    return at::from_blob(const_cast<void*>(view.data), {view.rows, view.columns},
                         ToScalarType(view.dtype));
  }

  at::Tensor HostFloats(const std::string& name) const {
    const LoadedMatrix matrix = checkpoint_.Read(name, context_.pool);
    return AsTensor(matrix.view).flatten().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }

  const Checkpoint& checkpoint_;
  const DType dtype_;
  const KernelContext& context_;
  WeightArena arena_;
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
  weights.output =
      loader.Output(config.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  for (int64_t i = 0; i < config.layers; ++i) {
    weights.layers.push_back(LoadLayer(loader, config, i));
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(config.layers));
  }
  return weights;
}

}  // namespace structattn
