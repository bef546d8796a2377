// The shape of a decoder-only transformer, as read from config.json or GGUF metadata.
// Everything in which LLaMA 2/3, Qwen2/2.5 and Qwen3 differ is a field here; nothing else asks
// for the architecture. Validated: every number is finite and in range, products do not overflow.
#ifndef STRUCTATTN_SERVER_MODEL_MODEL_CONFIG_H_
#define STRUCTATTN_SERVER_MODEL_MODEL_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attention/structure.h"
#include "kernels/dtype.h"
#include "server/model/folder_quantization.h"
#include "server/model/rope_scaling.h"

namespace structattn {

inline constexpr int64_t kMostLayers = 1024;

// A layer's MLP as a mixture of experts: small MLPs, of which a router chooses a few for each
// token. The names are those of config.json.
struct MixtureConfig {
  int64_t experts = 0;              // num_experts
  int64_t chosen = 0;               // num_experts_per_tok
  int64_t expert_size = 0;          // moe_intermediate_size
  int64_t shared_expert_size = 0;   // shared_expert_intermediate_size; 0: there is none.
  bool normalizes_weights = false;  // norm_topk_prob: the weights of a token's experts sum to 1.
  std::vector<bool> layers = {};    // Whether each layer has one; others have a plain MLP.
};

struct ModelConfig {
  std::string architecture;  // "llama", "qwen2", "qwen3_moe": a label for people.
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t context_length = 0;  // max_position_embeddings.
  double rms_norm_epsilon = 0.0;
  RopeConfig rope;
  // On layers that have it, a token sees the last so many tokens alone, itself among them
  // (MaySee). kNoWindow: on no layer.
  int32_t sliding_window = kNoWindow;
  std::vector<bool> windowed_layers;     // [layers], or empty: all of them.
  std::optional<MixtureConfig> mixture;  // Absent: every layer has a plain MLP.
  bool tied_embeddings = false;
  bool qkv_bias = false;     // q_proj, k_proj, v_proj have a bias (Qwen2).
  bool output_bias = false;  // o_proj has one (LLaMA with attention_bias).
  bool mlp_bias = false;
  bool qk_norm = false;            // RMS norm of each q and k head before rotary embedding (Qwen3).
  DType dtype = DType::kBfloat16;  // Stored type; what `--dtype auto` means.
  bool dtype_named = true;         // False: config.json names none, the stored tensors decide.
  std::vector<int32_t> eos_token_ids;
  std::optional<FolderQuantization> quantization;  // Of a Hugging Face folder's matrices.
  std::optional<int32_t> bos_token_id;  // As stored; it may be one of eos_token_ids, too.
  std::vector<std::string> warnings;    // What of the files is ignored, for the log.

  bool HasWindow(size_t layer) const {
    return sliding_window != kNoWindow && (windowed_layers.empty() || windowed_layers[layer]);
  }
  bool HasMixture(int64_t layer) const {
    return mixture.has_value() && mixture->layers[static_cast<size_t>(layer)];
  }
};

// config_json: contents of config.json. generation_config_json: of generation_config.json, or
// empty when the file is missing (then the EOS ids of config.json hold).
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json);

// Whether every number is in range and they fit each other. Messages say what was given and what is
// allowed, by the names of config.json. ParseModelConfig has called it already.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_MODEL_CONFIG_H_
