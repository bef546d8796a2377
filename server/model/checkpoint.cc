// What the checkpoint kinds share: the choice between them and the list of tensors that a config
// implies. See checkpoint.h. Reads no tensor itself.
#include "server/model/checkpoint.h"

#include <sys/stat.h>

#include "server/model/gguf_checkpoint.h"
#include "server/model/hf_checkpoint.h"
#include "server/model/refusal.h"

namespace structattn {
namespace {

void AppendLayer(const ModelConfig& config, int64_t layer, std::vector<TensorSpec>& specs) {
  const std::string prefix = Concat("model.layers.", layer, ".");
  const int64_t hidden = config.hidden_size;
  const int64_t queries = config.heads * config.head_dim;
  const int64_t keys = config.kv_heads * config.head_dim;
  const auto add = [&](std::string_view name, int64_t rows, int64_t columns) {
    specs.push_back({Concat(prefix, name), rows, columns});
  };
  const auto add_linear = [&](std::string_view name, int64_t outputs, int64_t inputs, bool bias) {
    add(Concat(name, ".weight"), outputs, inputs);
    if (bias) add(Concat(name, ".bias"), 1, outputs);
  };
  add("input_layernorm.weight", 1, hidden);
  add_linear("self_attn.q_proj", queries, hidden, config.qkv_bias);
  add_linear("self_attn.k_proj", keys, hidden, config.qkv_bias);
  add_linear("self_attn.v_proj", keys, hidden, config.qkv_bias);
  if (config.qk_norm) {
    add("self_attn.q_norm.weight", 1, config.head_dim);
    add("self_attn.k_norm.weight", 1, config.head_dim);
  }
  add_linear("self_attn.o_proj", hidden, queries, config.output_bias);
  add("post_attention_layernorm.weight", 1, hidden);
  add_linear("mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias);
  add_linear("mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias);
  add_linear("mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias);
}

}  // namespace

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  std::vector<TensorSpec> specs;
  specs.push_back({"model.embed_tokens.weight", config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.layers; ++layer) AppendLayer(config, layer, specs);
  specs.push_back({"model.norm.weight", 1, config.hidden_size});
  if (!config.tied_embeddings) {
    specs.push_back({"lm_head.weight", config.vocab_size, config.hidden_size});
  }
  return specs;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(Concat(path, ": no such model file or directory"));
  }
  return S_ISDIR(info.st_mode) ? OpenHfCheckpoint(path) : OpenGgufCheckpoint(path);
}

}  // namespace structattn
