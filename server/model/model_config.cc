// The checks that every model config passes, and the rotary frequencies it implies. Reads no file.
#include "server/model/model_config.h"

#include <cmath>
#include <numbers>

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
      {"num_hidden_layers", config.layers, 1024},
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
  if (config.head_dim < 16 || config.head_dim > 256 || config.head_dim % 16 != 0) {
    return Refuse("head_dim ", config.head_dim, ": allowed are multiples of 16 from 16 to 256");
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const ModelConfig& config) {
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("rope_theta", config.rope_theta, 1.0, 1e12));
  const auto half = static_cast<size_t>(config.head_dim / 2);
  if (!config.rope_frequency_divisors.empty() && config.rope_frequency_divisors.size() != half) {
    return Refuse(config.rope_frequency_divisors.size(), " rope frequency factors, head_dim ",
                  config.head_dim, " needs ", half);
  }
  for (const float divisor : config.rope_frequency_divisors) {
    STRUCTATTN_RETURN_IF_ERROR(CheckRange("rope frequency factor", divisor, 1e-6, 1e6));
  }
  if (!config.rope_scaling) return absl::OkStatus();
  const Llama3RopeScaling& scaling = *config.rope_scaling;
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("rope factor", scaling.factor, 1.0, 1e6));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("low_freq_factor", scaling.low_freq_factor, 1e-6, 1e6));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("high_freq_factor", scaling.high_freq_factor, 1e-6, 1e6));
  if (scaling.low_freq_factor >= scaling.high_freq_factor) {
    return Refuse("low_freq_factor ", scaling.low_freq_factor, ": must be below high_freq_factor ",
                  scaling.high_freq_factor);
  }
  return CheckRange("original_max_position_embeddings", scaling.original_max_position_embeddings,
                    1.0, 0x1p27);
}

// Source: _compute_llama3_parameters in transformers' modeling_rope_utils.py. There a scalar over a
// tensor is the reciprocal times the scalar, and the scalar is rounded to float first.
float ScaleLlama3(float frequency, const Llama3RopeScaling& scaling) {
  const double context = scaling.original_max_position_embeddings;
  const auto longest = static_cast<float>(context / scaling.low_freq_factor);
  const auto shortest = static_cast<float>(context / scaling.high_freq_factor);
  const auto factor = static_cast<float>(scaling.factor);
  const auto span = static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  const float wavelength = (1.0f / frequency) * static_cast<float>(2 * std::numbers::pi);
  if (wavelength < shortest) return frequency;
  if (wavelength > longest) return frequency / factor;
  const float smooth = ((1.0f / wavelength) * static_cast<float>(context) -
                        static_cast<float>(scaling.low_freq_factor)) /
                       span;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& config) {
  STRUCTATTN_RETURN_IF_ERROR(CheckSizes(config));
  STRUCTATTN_RETURN_IF_ERROR(CheckHeads(config));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("rms_norm_eps", config.rms_norm_epsilon, 1e-12, 1e-1));
  STRUCTATTN_RETURN_IF_ERROR(CheckRope(config));
  for (const int32_t id : config.eos_token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return Refuse("eos_token_id ", id, ": allowed are 0 to ", config.vocab_size - 1);
    }
  }
  return absl::OkStatus();
}

std::vector<float> InverseFrequencies(const ModelConfig& config) {
  const double theta = static_cast<float>(config.rope_theta);
  const auto head_dim = static_cast<float>(config.head_dim);
  std::vector<float> frequencies(static_cast<size_t>(config.head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / head_dim;
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    frequencies[i] = 1.0f / power;
    if (config.rope_scaling) frequencies[i] = ScaleLlama3(frequencies[i], *config.rope_scaling);
    if (!config.rope_frequency_divisors.empty()) {
      frequencies[i] /= config.rope_frequency_divisors[i];
    }
  }
  return frequencies;
}

}  // namespace structattn
