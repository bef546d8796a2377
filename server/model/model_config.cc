// The checks that every model config passes. Reads no file.
#include "server/model/model_config.h"

#include "kernels/check.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

absl::Status CheckRange(std::string_view name, int64_t value, int64_t smallest, int64_t largest) {
  if (value >= smallest && value <= largest) return absl::OkStatus();
  return Refuse(name, " ", value, ": allowed are ", smallest, " to ", largest);
}

// Refuses values outside [smallest, largest], and NaN.
absl::Status CheckRange(std::string_view name, double value, double smallest, double largest) {
  if (value >= smallest && value <= largest) return absl::OkStatus();
  return Refuse(name, " ", value, ": allowed are ", smallest, " to ", largest);
}

// The limits are far above any published model and keep every product of two below 2^44.
absl::Status CheckSizes(const ModelConfig& config) {
  struct Size {
    std::string_view name;
    int64_t value;
    int64_t largest;
  };
  const Size sizes[] = {
      {"vocab_size", config.vocab_size, int64_t{1} << 24},
      {"hidden_size", config.hidden_size, int64_t{1} << 16},
      {"intermediate_size", config.intermediate_size, int64_t{1} << 20},
      {"num_hidden_layers", config.layers, kMostLayers},
      {"num_attention_heads", config.heads, 1024},
      {"num_key_value_heads", config.kv_heads, 1024},
      {"max_position_embeddings", config.context_length, int64_t{1} << 27},
  };
  for (const Size& size : sizes) {
    STRUCTATTN_RETURN_IF_ERROR(CheckRange(size.name, size.value, 1, size.largest));
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0) {
    return Refuse("num_attention_heads ", config.heads, ": must be a multiple of the ",
                  config.kv_heads, " num_key_value_heads");
  }
  if (config.head_dim < 2 || config.head_dim > 256 || config.head_dim % 2 != 0) {
    return Refuse("head_dim ", config.head_dim, ": allowed are even numbers from 2 to 256");
  }
  return absl::OkStatus();
}

absl::Status CheckMixture(const ModelConfig& config) {
  if (!config.mixture.has_value()) return absl::OkStatus();
  const MixtureConfig& mixture = *config.mixture;
  STRUCTATTN_CHECK(static_cast<int64_t>(mixture.layers.size()) == config.layers);
  constexpr int64_t kLargest = int64_t{1} << 20;
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("num_experts", mixture.experts, 1, 4096));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("num_experts_per_tok", mixture.chosen, 1, mixture.experts));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("moe_intermediate_size", mixture.expert_size, 1, kLargest));
  return CheckRange("shared_expert_intermediate_size", mixture.shared_expert_size, 0, kLargest);
}

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& config) {
  STRUCTATTN_RETURN_IF_ERROR(CheckSizes(config));
  STRUCTATTN_RETURN_IF_ERROR(CheckHeads(config));
  STRUCTATTN_RETURN_IF_ERROR(CheckMixture(config));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("rms_norm_eps", config.rms_norm_epsilon, 1e-12, 1e-1));
  STRUCTATTN_RETURN_IF_ERROR(ValidateRope(config.rope, config.head_dim));
  for (const int32_t id : config.eos_token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return Refuse("eos_token_id ", id, ": allowed are 0 to ", config.vocab_size - 1);
    }
  }
  return absl::OkStatus();
}

}  // namespace structattn
