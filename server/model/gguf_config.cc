// GGUF metadata -> ModelConfig and GgufVocabulary (keys: ggml's docs/gguf.md): see gguf_config.h.
// Refuses by name whatever would change the computation and is not supported.
#include "server/model/gguf_config.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// Metadata keys of one architecture, "llama.block_count" for "block_count".
class ArchitectureKeys {
 public:
  ArchitectureKeys(const Gguf& gguf, std::string_view architecture)
      : gguf_(gguf), prefix_(Concat(architecture, ".")) {}

  // Leaves `target` as it is where the key is missing.
  template <typename T>
  absl::Status Read(std::string_view key, T& target) const {
    std::optional<T> value;
    STRUCTATTN_RETURN_IF_ERROR(gguf_.Read(prefix_ + std::string(key), value));
    if (value) target = *value;
    return absl::OkStatus();
  }

  bool Has(std::string_view key) const { return gguf_.Has(prefix_ + std::string(key)); }

  template <typename T>
  absl::Status ReadRequired(std::string_view key, T& target) const {
    if (!Has(key)) {
      return Refuse("metadata key '", prefix_, key, "' is missing");
    }
    return Read(key, target);
  }

  // Refuses anything but `allowed`: the key asks for a feature that is not supported.
  template <typename T>
  absl::Status RequireValue(std::string_view key, T allowed) const {
    T value = allowed;
    STRUCTATTN_RETURN_IF_ERROR(Read(key, value));
    if (value == allowed) return absl::OkStatus();
    return Refuse("metadata key '", prefix_, key, "' is ", value, ": supported is ", allowed);
  }

 private:
  const Gguf& gguf_;
  std::string prefix_;
};

absl::Status ReadSizes(const ArchitectureKeys& keys, ModelConfig& config) {
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("block_count", config.layers));
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("embedding_length", config.hidden_size));
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("feed_forward_length", config.intermediate_size));
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("context_length", config.context_length));
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("attention.head_count", config.heads));
  config.kv_heads = config.heads;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("attention.head_count_kv", config.kv_heads));
  if (config.heads > 0) config.head_dim = config.hidden_size / config.heads;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("attention.key_length", config.head_dim));
  STRUCTATTN_RETURN_IF_ERROR(keys.RequireValue("attention.value_length", config.head_dim));
  STRUCTATTN_RETURN_IF_ERROR(keys.RequireValue("rope.dimension_count", config.head_dim));
  return keys.ReadRequired("attention.layer_norm_rms_epsilon", config.rms_norm_epsilon);
}

absl::Status ReadYarn(const ArchitectureKeys& keys, double factor, ModelConfig& config) {
  YarnRopeScaling yarn{
      .factor = factor,
      .original_max_position_embeddings = static_cast<double>(config.context_length)};
  STRUCTATTN_RETURN_IF_ERROR(
      keys.Read("rope.scaling.original_context_length", yarn.original_max_position_embeddings));
  double attention_factor = 1.0;  // It comes on top of what the factor implies.
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scaling.attn_factor", attention_factor));
  yarn.attention_factor = attention_factor * YarnAttentionFactor(factor, 0, 0);
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scaling.yarn_beta_fast", yarn.beta_fast));
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scaling.yarn_beta_slow", yarn.beta_slow));
  config.rope.scaling = yarn;
  return absl::OkStatus();
}

// A factor without a type is a linear one. Old files call it rope.scale_linear.
absl::Status ReadRope(const ArchitectureKeys& keys, ModelConfig& config) {
  config.rope.theta = 10000.0;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.freq_base", config.rope.theta));
  double factor = 1.0;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scale_linear", factor));
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scaling.factor", factor));
  std::string type = "linear";
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("rope.scaling.type", type));
  if (type == "yarn") {
    STRUCTATTN_RETURN_IF_ERROR(ReadYarn(keys, factor, config));
  } else if (type == "linear") {
    if (factor != 1.0 && factor != 0.0) config.rope.scaling = LinearRopeScaling{factor};
  } else if (type != "none") {
    return Refuse("rope.scaling.type ", Quoted(type), ": supported are none, linear, yarn");
  }
  STRUCTATTN_RETURN_IF_ERROR(ValidateRope(config.rope, config.head_dim));
  config.context_length = StretchedContext(config.rope.scaling, config.context_length);
  return absl::OkStatus();
}

// The window of every layer; 0 for none, and so is one that no context fills.
absl::Status ReadWindow(const ArchitectureKeys& keys, ModelConfig& config) {
  int64_t window = 0;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("attention.sliding_window", window));
  if (window < 0) return Refuse("attention.sliding_window ", window, ": allowed are 0 and more");
  if (window == 0 || window >= config.context_length) return absl::OkStatus();
  if (keys.Has("attention.sliding_window_pattern")) {
    return Refuse("attention.sliding_window_pattern: supported are windows in every layer");
  }
  config.sliding_window = static_cast<int32_t>(window);
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const Gguf& gguf, const ArchitectureKeys& keys) {
  std::optional<std::string> type;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("general.type", type));
  if (type && type != "model") {
    return Refuse("general.type ", Quoted(*type), ": supported is model");
  }
  for (const std::string_view key :
       {"attention.scale", "attention.temperature_scale", "attention.clamp_kqv", "logit_scale",
        "embedding_scale", "residual_scale", "attn_logit_softcapping", "final_logit_softcapping"}) {
    if (keys.Has(key)) return Refuse("metadata key ", Quoted(key), ": is not supported");
  }
  STRUCTATTN_RETURN_IF_ERROR(keys.RequireValue("attention.causal", true));
  return absl::OkStatus();
}

bool IsMixture(std::string_view architecture) {
  return architecture == "qwen2moe" || architecture == "qwen3moe";
}

// A layer has a mixture where its router is. Sizes that old files lack follow from the plain MLP's,
// and whether the weights of a token's experts are normalised from the architecture, as in
// llama.cpp.
absl::Status ReadMixture(const Gguf& gguf, const ArchitectureKeys& keys, ModelConfig& config) {
  if (!IsMixture(config.architecture)) return keys.RequireValue("expert_count", int64_t{0});
  STRUCTATTN_RETURN_IF_ERROR(keys.RequireValue("expert_weights_scale", 1.0));
  constexpr int64_t kSoftmax = 1;
  STRUCTATTN_RETURN_IF_ERROR(keys.RequireValue("expert_gating_func", kSoftmax));
  const bool shares = config.architecture == "qwen2moe";
  MixtureConfig mixture = {.shared_expert_size = shares ? config.intermediate_size : 0,
                           .normalizes_weights = !shares};
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("expert_count", mixture.experts));
  STRUCTATTN_RETURN_IF_ERROR(keys.ReadRequired("expert_used_count", mixture.chosen));
  if (mixture.chosen > 0) mixture.expert_size = config.intermediate_size / mixture.chosen;
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("expert_feed_forward_length", mixture.expert_size));
  if (shares) {
    STRUCTATTN_RETURN_IF_ERROR(
        keys.Read("expert_shared_feed_forward_length", mixture.shared_expert_size));
  }
  STRUCTATTN_RETURN_IF_ERROR(keys.Read("expert_weights_norm", mixture.normalizes_weights));
  // ValidateModelConfig refuses other numbers of layers.
  if (config.layers < 1 || config.layers > kMostLayers) return absl::OkStatus();
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string router = Concat("blk.", layer, ".ffn_gate_inp.weight");
    mixture.layers.push_back(gguf.FindTensor(router) != nullptr);
  }
  config.mixture = std::move(mixture);
  return absl::OkStatus();
}

// The type that the file was made from, as far as its encodings tell. Norms are F32 in every file.
DType MainDType(const Gguf& gguf) {
  bool half = false;
  for (const auto& [name, tensor] : gguf.tensors()) {
    const std::optional<DType>& plain = tensor.encoding->plain;
    if (!plain || *plain == DType::kBfloat16) return DType::kBfloat16;
    half = half || *plain == DType::kFloat16;
  }
  return half ? DType::kFloat16 : DType::kFloat32;
}

// A number that no vocabulary reaches, such as -1, means that there is no such token.
absl::Status ReadId(const Gguf& gguf, std::string_view key, std::optional<int32_t>& target) {
  std::optional<int64_t> id;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read(key, id));
  if (id && *id >= 0 && *id <= (int64_t{1} << 24)) target = static_cast<int32_t>(*id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadGgufConfig(const Gguf& gguf) {
  std::optional<std::string> architecture;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("general.architecture", architecture));
  if (!architecture) return Refuse("metadata key 'general.architecture' is missing");
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3" &&
      !IsMixture(*architecture)) {
    return Refuse("general.architecture ", Quoted(*architecture),
                  ": supported are llama, qwen2, qwen3, qwen2moe, qwen3moe");
  }
  ModelConfig config;
  config.architecture = *architecture;
  const ArchitectureKeys keys(gguf, *architecture);
  STRUCTATTN_RETURN_IF_ERROR(RefuseUnsupported(gguf, keys));
  STRUCTATTN_RETURN_IF_ERROR(ReadSizes(keys, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadMixture(gguf, keys, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadRope(keys, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadWindow(keys, config));

  const GgufTensor* embedding = gguf.FindTensor("token_embd.weight");
  if (embedding == nullptr) return Refuse("'token_embd.weight': tensor is missing");
  if (embedding->dimensions.size() != 2) return Refuse("'token_embd.weight': is not a matrix");
  config.vocab_size = embedding->dimensions[1];
  config.tied_embeddings = gguf.FindTensor("output.weight") == nullptr;
  config.qkv_bias = architecture == "qwen2" || gguf.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.output_bias = gguf.FindTensor("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = gguf.FindTensor("blk.0.ffn_gate.bias") != nullptr;
  config.qk_norm = architecture == "qwen3" || architecture == "qwen3moe";
  config.dtype = MainDType(gguf);
  STRUCTATTN_RETURN_IF_ERROR(ReadId(gguf, "tokenizer.ggml.bos_token_id", config.bos_token_id));
  if (config.bos_token_id >= config.vocab_size) config.bos_token_id.reset();
  STRUCTATTN_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const Gguf& gguf) {
  GgufVocabulary vocabulary;
  std::optional<std::string> model;
  std::optional<std::string> pre;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.model", model));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.pre", pre));
  if (!model) return Refuse("metadata key 'tokenizer.ggml.model' is missing");
  vocabulary.model = *model;
  vocabulary.pre = pre.value_or("");
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.tokens", vocabulary.tokens));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.scores", vocabulary.scores));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.token_type", vocabulary.token_types));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.merges", vocabulary.merges));
  const size_t tokens = vocabulary.tokens.size();
  if (tokens == 0) return Refuse("metadata key 'tokenizer.ggml.tokens' is missing or empty");
  const auto fits = [tokens](size_t count) { return count == 0 || count == tokens; };
  if (!fits(vocabulary.scores.size()) || !fits(vocabulary.token_types.size())) {
    return Refuse("tokenizer.ggml: ", tokens, " tokens, ", vocabulary.scores.size(), " scores, ",
                  vocabulary.token_types.size(), " token types: must be as many, or none");
  }
  STRUCTATTN_RETURN_IF_ERROR(ReadId(gguf, "tokenizer.ggml.bos_token_id", vocabulary.bos_token_id));
  STRUCTATTN_RETURN_IF_ERROR(ReadId(gguf, "tokenizer.ggml.eos_token_id", vocabulary.eos_token_id));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.add_bos_token", vocabulary.add_bos_token));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("tokenizer.ggml.add_eos_token", vocabulary.add_eos_token));
  STRUCTATTN_RETURN_IF_ERROR(
      gguf.Read("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix));
  return vocabulary;
}

}  // namespace structattn
