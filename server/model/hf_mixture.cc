// See hf_mixture.h. Source of the rule of layers: Qwen2MoeDecoderLayer of transformers.
#include "server/model/hf_mixture.h"

#include <algorithm>
#include <utility>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// Layer i has a mixture where i + 1 is a multiple of decoder_sparse_step, unless mlp_only_layers
// names it.
absl::Status ReadLayers(const Fields& fields, int64_t layers, MixtureConfig& mixture) {
  int64_t step = 1;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("decoder_sparse_step", step));
  if (step < 1) return Refuse("decoder_sparse_step ", step, ": allowed are numbers from 1");
  for (int64_t layer = 0; layer < layers; ++layer) {
    mixture.layers.push_back((layer + 1) % step == 0);
  }
  const Json* plain = fields.Find("mlp_only_layers");
  if (plain == nullptr) return absl::OkStatus();
  if (!plain->is_array()) return Fields::WrongKind("mlp_only_layers", *plain, "a list");
  for (const Json& layer : *plain) {
    if (!layer.is_number_integer()) {
      return Fields::WrongKind("mlp_only_layers", layer, "a list of integers");
    }
    // An unsigned number past the layers must not wrap to one of them.
    if (layer >= 0 && layer < layers) mixture.layers[layer.get<size_t>()] = false;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadHfMixture(const Fields& fields, const MixtureDefaults& defaults,
                           ModelConfig& config) {
  MixtureConfig mixture = {.experts = defaults.experts,
                           .chosen = defaults.chosen,
                           .expert_size = defaults.expert_size,
                           .shared_expert_size = defaults.shared_expert_size};
  for (const std::string_view key : {"num_local_experts", "num_experts"}) {
    STRUCTATTN_RETURN_IF_ERROR(fields.Read(key, mixture.experts));
  }
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("num_experts_per_tok", mixture.chosen));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("moe_intermediate_size", mixture.expert_size));
  if (defaults.shared_expert_size > 0) {
    STRUCTATTN_RETURN_IF_ERROR(
        fields.Read("shared_expert_intermediate_size", mixture.shared_expert_size));
    if (mixture.shared_expert_size < 1) {
      return Refuse("shared_expert_intermediate_size ", mixture.shared_expert_size,
                    ": allowed are numbers from 1");
    }
  }
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("norm_topk_prob", mixture.normalizes_weights));
  // ValidateModelConfig refuses other numbers of layers.
  if (config.layers < 1 || config.layers > kMostLayers) return absl::OkStatus();
  STRUCTATTN_RETURN_IF_ERROR(ReadLayers(fields, config.layers, mixture));
  const bool any = std::ranges::find(mixture.layers, true) != mixture.layers.end();
  if (mixture.experts != 0 && any) config.mixture = std::move(mixture);
  return absl::OkStatus();
}

}  // namespace structattn
