// The rows of the table, and what of them a config asks for. See tensor_table.h.
#include "server/model/tensor_table.h"

#include <cstddef>
#include <string_view>
#include <utility>

#include "server/model/refusal.h"

namespace structattn {
namespace {

// A row: names without the layer before and ".weight" or ".bias" behind.
struct TableRow {
  std::string_view name;
  std::string_view gguf_name;
  int64_t rows;
  int64_t columns;
  Destination destination;
  bool is_present = true;
  bool has_bias = false;
  bool is_rotary = false;
};

void AppendRow(const TableRow& row, int64_t layer, std::vector<TensorSpec>* specs) {
  if (!row.is_present) return;
  const bool in_layer = layer >= 0;
  const std::string prefix = in_layer ? Concat("model.layers.", layer, ".") : std::string();
  const std::string gguf_prefix = in_layer ? Concat("blk.", layer, ".") : std::string();
  specs->push_back({.name = Concat(prefix, row.name, ".weight"),
                    .gguf_name = Concat(gguf_prefix, row.gguf_name, ".weight"),
                    .rows = row.rows,
                    .columns = row.columns,
                    .destination = row.destination,
                    .layer = layer,
                    .is_rotary = row.is_rotary});
  if (!row.has_bias) return;
  TensorSpec bias = specs->back();
  bias.name = Concat(prefix, row.name, ".bias");
  bias.gguf_name = Concat(gguf_prefix, row.gguf_name, ".bias");
  bias.rows = 1;
  bias.columns = row.rows;
  bias.is_bias = true;
  specs->push_back(std::move(bias));
}

// One expert's matrices. Version 5 of transformers may store those of a layer as two tensors, with
// gate and up of an expert one after the other.
void AppendExpert(const ModelConfig& config, int64_t layer, int64_t expert,
                  std::vector<TensorSpec>* specs) {
  using enum Destination;
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.mixture->expert_size;
  const std::string stacks = Concat("model.layers.", layer, ".mlp.experts.");
  struct ExpertRow {
    std::string_view name;
    TableRow row;
    ExpertStack stack;
  };
  const ExpertRow rows[] = {
      {"gate_proj", {"", "ffn_gate_exps", inner, hidden, kExpertGateUp}, {"gate_up", 2 * inner, 0}},
      {"up_proj", {"", "ffn_up_exps", inner, hidden, kExpertGateUp}, {"gate_up", 2 * inner, inner}},
      {"down_proj", {"", "ffn_down_exps", hidden, inner, kExpertDown}, {"down", hidden, 0}},
  };
  for (const ExpertRow& expert_row : rows) {
    const std::string name = Concat("mlp.experts.", expert, ".", expert_row.name);
    TableRow row = expert_row.row;
    row.name = name;
    AppendRow(row, layer, specs);
    TensorSpec& spec = specs->back();
    spec.expert = expert;
    spec.experts = config.mixture->experts;
    spec.stack = expert_row.stack;
    spec.stack.name = Concat(stacks, expert_row.stack.name, "_proj");
  }
}

void AppendMixture(const ModelConfig& config, int64_t layer, std::vector<TensorSpec>* specs) {
  using enum Destination;
  const MixtureConfig& mixture = *config.mixture;
  const int64_t hidden = config.hidden_size;
  const int64_t shared = mixture.shared_expert_size;
  const bool is_shared = shared > 0;
  const TableRow rows[] = {
      {"mlp.gate", "ffn_gate_inp", mixture.experts, hidden, kRouter},
      {"mlp.shared_expert_gate", "ffn_gate_inp_shexp", 1, hidden, kRouter, is_shared},
      {"mlp.shared_expert.gate_proj", "ffn_gate_shexp", shared, hidden, kSharedGateUp, is_shared},
      {"mlp.shared_expert.up_proj", "ffn_up_shexp", shared, hidden, kSharedGateUp, is_shared},
      {"mlp.shared_expert.down_proj", "ffn_down_shexp", hidden, shared, kSharedDown, is_shared},
  };
  for (const TableRow& row : rows) AppendRow(row, layer, specs);
  for (int64_t expert = 0; expert < mixture.experts; ++expert) {
    AppendExpert(config, layer, expert, specs);
  }
}

void AppendLayer(const ModelConfig& config, int64_t layer, std::vector<TensorSpec>* specs) {
  using enum Destination;
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t queries = config.heads * config.head_dim;
  const int64_t keys = config.kv_heads * config.head_dim;
  const bool norm = config.qk_norm;
  const bool qkv_bias = config.qkv_bias;
  const bool mlp_bias = config.mlp_bias;
  const bool plain_mlp = !config.HasMixture(layer);
  const TableRow rows[] = {
      {"input_layernorm", "attn_norm", 1, hidden, kAttentionNorm},
      {"self_attn.q_proj", "attn_q", queries, hidden, kQkv, true, qkv_bias, true},
      {"self_attn.k_proj", "attn_k", keys, hidden, kQkv, true, qkv_bias, true},
      {"self_attn.v_proj", "attn_v", keys, hidden, kQkv, true, qkv_bias},
      {"self_attn.q_norm", "attn_q_norm", 1, config.head_dim, kQueryNorm, norm},
      {"self_attn.k_norm", "attn_k_norm", 1, config.head_dim, kKeyNorm, norm},
      {"self_attn.o_proj", "attn_output", hidden, queries, kAttentionOutput, true,
       config.output_bias},
      {"post_attention_layernorm", "ffn_norm", 1, hidden, kMlpNorm},
      {"mlp.gate_proj", "ffn_gate", inner, hidden, kGateUp, plain_mlp, mlp_bias},
      {"mlp.up_proj", "ffn_up", inner, hidden, kGateUp, plain_mlp, mlp_bias},
      {"mlp.down_proj", "ffn_down", hidden, inner, kMlpDown, plain_mlp, mlp_bias},
  };
  for (const TableRow& row : rows) AppendRow(row, layer, specs);
  if (!plain_mlp) AppendMixture(config, layer, specs);
}

}  // namespace

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  using enum Destination;
  const int64_t vocabulary = config.vocab_size;
  const int64_t hidden = config.hidden_size;
  std::vector<TensorSpec> specs;
  AppendRow({"model.embed_tokens", "token_embd", vocabulary, hidden, kEmbedding}, -1, &specs);
  for (int64_t layer = 0; layer < config.layers; ++layer) AppendLayer(config, layer, &specs);
  AppendRow({"model.norm", "output_norm", 1, hidden, kFinalNorm}, -1, &specs);
  AppendRow({"lm_head", "output", vocabulary, hidden, kOutput, !config.tied_embeddings}, -1,
            &specs);
  return specs;
}

}  // namespace structattn
