// The table of tensors: which rows a config asks for, under which names, and where they go.
#include "server/model/tensor_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tuple>

namespace structattn {
namespace {

using ::testing::ElementsAre;

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 100;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.layers = 13;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  return config;
}

const TensorSpec& Find(const std::vector<TensorSpec>& specs, const std::string& name) {
  for (const TensorSpec& spec : specs) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << name << " is not there";
  return specs.front();
}

TEST(TensorTable, NamesATensorInBothFormats) {
  ModelConfig config = Config();
  config.qk_norm = config.qkv_bias = true;
  config.tied_embeddings = false;
  const std::vector<TensorSpec> specs = ExpectedTensors(config);
  const auto gguf_name = [&](const std::string& name) { return Find(specs, name).gguf_name; };
  EXPECT_EQ(gguf_name("model.layers.12.self_attn.q_proj.bias"), "blk.12.attn_q.bias");
  EXPECT_EQ(gguf_name("model.layers.0.self_attn.k_norm.weight"), "blk.0.attn_k_norm.weight");
  EXPECT_EQ(gguf_name("model.layers.3.post_attention_layernorm.weight"), "blk.3.ffn_norm.weight");
  EXPECT_EQ(gguf_name("model.layers.3.mlp.down_proj.weight"), "blk.3.ffn_down.weight");
  EXPECT_EQ(gguf_name("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(gguf_name("model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(gguf_name("lm_head.weight"), "output.weight");
  std::set<std::string> names, gguf_names;
  for (const TensorSpec& spec : specs) {
    names.insert(spec.name);
    gguf_names.insert(spec.gguf_name);
  }
  EXPECT_EQ(names.size(), specs.size());
  EXPECT_EQ(gguf_names.size(), specs.size());
}

TEST(TensorTable, TheConfigDecidesWhatIsThere) {
  ModelConfig config = Config();
  config.qk_norm = config.qkv_bias = config.output_bias = config.mlp_bias = false;
  config.tied_embeddings = true;
  const size_t least = ExpectedTensors(config).size();
  EXPECT_EQ(least, 2u + 13 * 9);
  const auto more = [&](bool ModelConfig::*option) {
    ModelConfig other = config;
    other.*option = !(other.*option);
    return ExpectedTensors(other).size() - least;
  };
  EXPECT_EQ(more(&ModelConfig::qk_norm), 13u * 2);
  EXPECT_EQ(more(&ModelConfig::qkv_bias), 13u * 3);
  EXPECT_EQ(more(&ModelConfig::output_bias), 13u);
  EXPECT_EQ(more(&ModelConfig::mlp_bias), 13u * 3);
  EXPECT_EQ(more(&ModelConfig::tied_embeddings), 1u);
}

TEST(TensorTable, ABiasFollowsItsMatrixToItsDestination) {
  ModelConfig config = Config();
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  const std::vector<TensorSpec> specs = ExpectedTensors(config);
  int biases = 0;
  for (size_t i = 1; i < specs.size(); ++i) {
    if (!specs[i].is_bias) continue;
    ++biases;
    const TensorSpec& matrix = specs[i - 1];
    EXPECT_FALSE(matrix.is_bias);
    EXPECT_EQ(std::tuple(specs[i].rows, specs[i].columns), std::tuple(1, matrix.rows));
    EXPECT_EQ(std::tuple(specs[i].destination, specs[i].layer, specs[i].is_rotary),
              std::tuple(matrix.destination, matrix.layer, matrix.is_rotary));
  }
  EXPECT_EQ(biases, 13 * 7);
}

TEST(TensorTable, WhatIsStackedIsNeighbours) {
  ModelConfig config = Config();
  config.layers = 1;
  config.qkv_bias = config.output_bias = config.mlp_bias = false;
  std::vector<std::string> qkv, gate_up;
  std::vector<Destination> order;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    if (spec.destination == Destination::kQkv) qkv.push_back(spec.gguf_name);
    if (spec.destination == Destination::kGateUp) gate_up.push_back(spec.gguf_name);
    if (order.empty() || order.back() != spec.destination) order.push_back(spec.destination);
  }
  EXPECT_THAT(qkv,
              ElementsAre("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"));
  EXPECT_THAT(gate_up, ElementsAre("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"));
  EXPECT_EQ(std::set<Destination>(order.begin(), order.end()).size(), order.size());
}

}  // namespace
}  // namespace structattn
