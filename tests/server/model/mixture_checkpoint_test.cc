// Mixtures of experts in checkpoints: what config.json and GGUF metadata mean, where each expert's
// matrix is found, one tensor for each or all of a layer in one, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "kernels/thread_pool.h"
#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// The tiny model with three experts, of which a token has two, in its second layer alone.
Json TinyMixture(std::string_view kind, const Json& patch = Json::object()) {
  Json config = TinyConfig();
  config["architectures"] = {kind == "qwen2_moe" ? "Qwen2MoeForCausalLM" : "Qwen3MoeForCausalLM"};
  config["model_type"] = kind;
  config["num_experts"] = 3;
  config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 24;
  config["shared_expert_intermediate_size"] = 40;
  config["decoder_sparse_step"] = 2;
  config["norm_topk_prob"] = true;
  for (const auto& [key, value] : patch.items()) config[key] = value;
  return config;
}

ModelConfig Parsed(const Json& json) {
  auto config = ParseModelConfig(json.dump(), "");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

std::string ErrorOf(const Json& json) {
  return std::string(ParseModelConfig(json.dump(), "").status().message());
}

TEST(HfMixtureTest, ReadsTheKeysOfBothFamilies) {
  const ModelConfig qwen2 = Parsed(TinyMixture("qwen2_moe"));
  ASSERT_TRUE(qwen2.mixture.has_value());
  EXPECT_EQ(qwen2.architecture, "qwen2_moe");
  EXPECT_EQ(qwen2.mixture->experts, 3);
  EXPECT_EQ(qwen2.mixture->chosen, 2);
  EXPECT_EQ(qwen2.mixture->expert_size, 24);
  EXPECT_EQ(qwen2.mixture->shared_expert_size, 40);
  EXPECT_TRUE(qwen2.mixture->normalizes_weights);
  EXPECT_THAT(qwen2.mixture->layers, ElementsAre(false, true));
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias || qwen2.qk_norm);
  EXPECT_FALSE(Parsed(TinyMixture("qwen2_moe", {{"qkv_bias", false}})).qkv_bias);

  const ModelConfig qwen3 = Parsed(TinyMixture("qwen3_moe", {{"norm_topk_prob", nullptr}}));
  EXPECT_EQ(qwen3.mixture->shared_expert_size, 0) << "the family has none, whatever the key says";
  EXPECT_FALSE(qwen3.mixture->normalizes_weights);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);

  // As version 5 of transformers writes it.
  Json renamed = TinyMixture("qwen3_moe", {{"num_local_experts", 5}});
  renamed.erase("num_experts");
  EXPECT_EQ(Parsed(renamed).mixture->experts, 5);
}

TEST(HfMixtureTest, MissingKeysAreTheFamilys) {
  Json config = {{"model_type", "qwen2_moe"}};
  const ModelConfig qwen2 = Parsed(config);
  EXPECT_EQ(qwen2.hidden_size, 2048);
  EXPECT_EQ(qwen2.layers, 24);
  EXPECT_EQ(qwen2.heads, 16);
  EXPECT_EQ(qwen2.kv_heads, 16);
  EXPECT_EQ(qwen2.mixture->experts, 60);
  EXPECT_EQ(qwen2.mixture->chosen, 4);
  EXPECT_EQ(qwen2.mixture->expert_size, 1408);
  EXPECT_EQ(qwen2.mixture->shared_expert_size, 5632);
  config["model_type"] = "qwen3_moe";
  const ModelConfig qwen3 = Parsed(config);
  EXPECT_EQ(qwen3.intermediate_size, 6144);
  EXPECT_EQ(qwen3.kv_heads, 4);
  EXPECT_EQ(qwen3.head_dim, 64);
  EXPECT_EQ(qwen3.mixture->experts, 128);
  EXPECT_EQ(qwen3.mixture->chosen, 8);
  EXPECT_EQ(qwen3.mixture->expert_size, 768);
}

TEST(HfMixtureTest, LayersFollowTheStepAndTheListOfPlainOnes) {
  const auto layers = [](const Json& patch) {
    Json json = TinyMixture("qwen3_moe", {{"num_hidden_layers", 6}});
    for (const auto& [key, value] : patch.items()) json[key] = value;
    return Parsed(json).mixture->layers;
  };
  EXPECT_THAT(layers({{"decoder_sparse_step", 1}}),
              ElementsAre(true, true, true, true, true, true));
  EXPECT_THAT(layers({{"decoder_sparse_step", 3}}),
              ElementsAre(false, false, true, false, false, true));
  EXPECT_THAT(layers({{"decoder_sparse_step", 2}, {"mlp_only_layers", {1, 4, 99, -1}}}),
              ElementsAre(false, false, false, true, false, true));
  // Without any, it is a plain model.
  EXPECT_FALSE(Parsed(TinyMixture("qwen3_moe", {{"num_experts", 0}})).mixture.has_value());
  EXPECT_FALSE(Parsed(TinyMixture("qwen3_moe", {{"mlp_only_layers", {1}}})).mixture.has_value());
}

TEST(HfMixtureTest, RefusesWhatCannotBeMeant) {
  const std::pair<Json, std::string> cases[] = {
      {{{"decoder_sparse_step", 0}}, "decoder_sparse_step 0: allowed are numbers from 1"},
      {{{"mlp_only_layers", 5}}, "mlp_only_layers is '5', a list is needed"},
      {{{"mlp_only_layers", {0.5}}}, "mlp_only_layers is '0.5', a list of integers is needed"},
      {{{"num_experts", -1}}, "num_experts -1: allowed are 1 to 4096"},
      {{{"num_experts", 5000}}, "num_experts 5000: allowed are 1 to 4096"},
      {{{"num_experts_per_tok", 4}}, "num_experts_per_tok 4: allowed are 1 to 3"},
      {{{"num_experts_per_tok", 0}}, "num_experts_per_tok 0: allowed are 1 to 3"},
      {{{"moe_intermediate_size", 0}}, "moe_intermediate_size 0: allowed are 1 to 1048576"},
      {{{"shared_expert_intermediate_size", 0}},
       "shared_expert_intermediate_size 0: allowed are numbers from 1"},
      {{{"norm_topk_prob", 1}}, "norm_topk_prob is '1', true or false is needed"},
      {{{"num_hidden_layers", int64_t{1} << 60}}, "num_hidden_layers 1152921504606846976: allowed"},
  };
  for (const auto& [patch, message] : cases) {
    EXPECT_THAT(ErrorOf(TinyMixture("qwen2_moe", patch)),
                AllOf(HasSubstr("config.json: "), HasSubstr(message)));
  }
}

TEST(MixtureTensorsTest, TheTableHasARouterAndEveryExpertInPlaceOfAPlainMlp) {
  const std::vector<TensorSpec> specs = ExpectedTensors(Parsed(TinyMixture("qwen2_moe")));
  std::set<std::string> names;
  std::map<std::string, const TensorSpec*> by_name;
  for (const TensorSpec& spec : specs) {
    names.insert(spec.name);
    by_name[spec.name] = &spec;
  }
  EXPECT_EQ(names.size(), specs.size());
  EXPECT_TRUE(names.contains("model.layers.0.mlp.gate_proj.weight"));
  EXPECT_FALSE(names.contains("model.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(names.contains("model.layers.1.mlp.gate_proj.weight"));
  const std::pair<std::string, std::string> gguf_names[] = {
      {"mlp.gate", "ffn_gate_inp"},
      {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
      {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
      {"mlp.experts.2.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.0.up_proj", "ffn_up_exps"},
      {"mlp.experts.1.down_proj", "ffn_down_exps"}};
  for (const auto& [name, gguf_name] : gguf_names) {
    const auto found = by_name.find("model.layers.1." + name + ".weight");
    ASSERT_NE(found, by_name.end()) << name;
    EXPECT_EQ(found->second->gguf_name, "blk.1." + gguf_name + ".weight");
  }
  const TensorSpec& up = *by_name.at("model.layers.1.mlp.experts.2.up_proj.weight");
  EXPECT_EQ(up.expert, 2);
  EXPECT_EQ(up.experts, 3);
  EXPECT_EQ(up.rows, 24);
  EXPECT_EQ(up.columns, 32);
  EXPECT_EQ(up.stack.name, "model.layers.1.mlp.experts.gate_up_proj");
  EXPECT_EQ(up.stack.rows, 48);
  EXPECT_EQ(up.stack.row_begin, 24);
}

// The tensors of a mixture's layers with the experts of a layer in one, by `name_of` in the order
// of the table.
template <typename NameOf>
std::vector<FileTensor> Stacked(const ModelConfig& config, const NameOf& name_of) {
  std::map<std::string, std::map<int64_t, std::string>> parts;  // Of a stack, by expert.
  std::map<std::string, FileTensor> stacks;
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    std::string bytes = TinyBytes(spec.name, "F32", spec.rows * spec.columns);
    const std::string name = name_of(spec);
    if (spec.expert < 0) {
      std::vector<int64_t> shape = {spec.rows, spec.columns};
      if (spec.rows == 1) shape = {spec.columns};
      tensors.push_back({name, "F32", shape, bytes});
      continue;
    }
    std::string& part = parts[name][spec.expert];
    part += bytes;
    stacks[name] = {
        name,
        "F32",
        {spec.experts, static_cast<int64_t>(part.size()) / 4 / spec.columns, spec.columns},
        ""};
  }
  for (auto& [name, stack] : stacks) {
    for (const auto& [expert, bytes] : parts[name]) stack.bytes += bytes;
    tensors.push_back(stack);
  }
  return tensors;
}

std::vector<FileTensor> InVersion5(const ModelConfig& config) {
  return Stacked(
      config, [](const TensorSpec& spec) { return spec.expert < 0 ? spec.name : spec.stack.name; });
}

void WriteFolder(const TempDirectory& directory, const std::vector<FileTensor>& tensors) {
  directory.Write("config.json", TinyMixture("qwen2_moe").dump());
  directory.Write("tokenizer.json", TinyTokenizer());
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
}

void ExpectTinyValues(const absl::StatusOr<std::unique_ptr<Checkpoint>>& checkpoint) {
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const TensorSpec& spec : ExpectedTensors((*checkpoint)->config())) {
    const LoadedMatrix matrix = (*checkpoint)->Read(spec.name);
    const std::string expected = TinyBytes(spec.name, "F32", spec.rows * spec.columns);
    EXPECT_EQ(std::memcmp(matrix.view.data, expected.data(), expected.size()), 0) << spec.name;
  }
}

TEST(HfMixtureCheckpointTest, ReadsATensorForEachExpertAndStacksOfThem) {
  const ModelConfig config = Parsed(TinyMixture("qwen2_moe"));
  const TempDirectory directory;
  WriteFolder(directory, TinyTensors(config, "F32"));
  const auto apart = Checkpoint::Open(directory.path());
  ExpectTinyValues(apart);
  WriteFolder(directory, InVersion5(config));
  const auto stacked = Checkpoint::Open(directory.path());
  ExpectTinyValues(stacked);
  EXPECT_EQ((*stacked)->parameters(), (*apart)->parameters());
}

TEST(HfMixtureCheckpointTest, RefusalsNameTheExpertOrTheStack) {
  const ModelConfig config = Parsed(TinyMixture("qwen2_moe"));
  const TempDirectory directory;
  std::vector<FileTensor> tensors = TinyTensors(config, "F32");
  std::erase_if(tensors, [](const FileTensor& tensor) {
    return tensor.name == "model.layers.1.mlp.experts.1.up_proj.weight";
  });
  WriteFolder(directory, tensors);
  EXPECT_THAT(std::string(Checkpoint::Open(directory.path()).status().message()),
              HasSubstr("'model.layers.1.mlp.experts.1.up_proj.weight': tensor is missing"));
  tensors = InVersion5(config);
  for (FileTensor& tensor : tensors) {
    if (tensor.name.ends_with("gate_up_proj")) std::swap(tensor.shape[1], tensor.shape[2]);
  }
  WriteFolder(directory, tensors);
  EXPECT_THAT(std::string(Checkpoint::Open(directory.path()).status().message()),
              HasSubstr("'model.layers.1.mlp.experts.gate_up_proj': shape [3, 32, 48], the config "
                        "asks for [3, 48, 32]"));
}

// As llama.cpp's converter writes it: the experts of a layer in three tensors, no permutation.
GgufWriter MixtureGguf(const std::string& architecture) {
  const ModelConfig config =
      Parsed(TinyMixture(architecture == "qwen2moe" ? "qwen2_moe" : "qwen3_moe"));
  GgufWriter writer = TinyGguf();
  writer.tensors.clear();
  for (const FileTensor& tensor :
       Stacked(config, [](const TensorSpec& spec) { return spec.gguf_name; })) {
    const std::vector<uint64_t> dimensions(tensor.shape.rbegin(), tensor.shape.rend());
    writer.tensors.push_back({tensor.name, dimensions, 0, tensor.bytes});
  }
  writer.Text("general.architecture", architecture);
  const std::map<std::string, uint32_t> values = {{"block_count", 2},
                                                  {"embedding_length", 32},
                                                  {"feed_forward_length", 48},
                                                  {"context_length", 64},
                                                  {"attention.head_count", 2},
                                                  {"attention.head_count_kv", 1},
                                                  {"expert_count", 3},
                                                  {"expert_used_count", 2},
                                                  {"expert_feed_forward_length", 24},
                                                  {"expert_shared_feed_forward_length", 40}};
  for (const auto& [key, value] : values) writer.Uint32(architecture + "." + key, value);
  writer.Float32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  return writer;
}

TEST(GgufMixtureTest, ReadsTheStacksOfBothArchitectures) {
  for (const std::string architecture : {"qwen2moe", "qwen3moe"}) {
    const TempDirectory directory;
    const auto checkpoint =
        Checkpoint::Open(directory.Write("m.gguf", MixtureGguf(architecture).Bytes()));
    ExpectTinyValues(checkpoint);
    const MixtureConfig& mixture = *(*checkpoint)->config().mixture;
    EXPECT_EQ(mixture.experts, 3);
    EXPECT_EQ(mixture.chosen, 2);
    EXPECT_EQ(mixture.expert_size, 24);
    EXPECT_EQ(mixture.shared_expert_size, architecture == "qwen2moe" ? 40 : 0);
    EXPECT_EQ(mixture.normalizes_weights, architecture == "qwen3moe") << "as in llama.cpp";
    EXPECT_THAT(mixture.layers, ElementsAre(false, true)) << "where a router is";
  }
}

TEST(GgufMixtureTest, AKeySaysWhetherWeightsAreNormalised) {
  const TempDirectory directory;
  GgufWriter writer = MixtureGguf("qwen3moe");
  writer.Bool("qwen3moe.expert_weights_norm", false);
  const auto checkpoint = Checkpoint::Open(directory.Write("m.gguf", writer.Bytes()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE((*checkpoint)->config().mixture->normalizes_weights);
}

// Every expert's rows of Q8_0 quant blocks are its own.
TEST(GgufMixtureTest, QuantBlocksOfAnExpertAreASliceOfItsStack) {
  const TempDirectory directory;
  GgufWriter writer = MixtureGguf("qwen3moe");
  GgufWriter::Tensor& stack = writer.Find("blk.1.ffn_up_exps.weight");
  stack.type = 8;
  stack.bytes.clear();
  for (int row = 0; row < 3 * 24; ++row) {
    stack.bytes += BytesOf(uint16_t{0x3c00}) + std::string(32, static_cast<char>(row));
  }
  const auto checkpoint = Checkpoint::Open(directory.Write("m.gguf", writer.Bytes()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ThreadPool pool(1);
  for (int expert = 0; expert < 3; ++expert) {
    const std::string name =
        "model.layers.1.mlp.experts." + std::to_string(expert) + ".up_proj.weight";
    const auto quantized = (*checkpoint)->ReadQuantized(name, pool);
    ASSERT_TRUE(quantized.has_value());
    EXPECT_EQ(quantized->view.rows, 24);
    EXPECT_EQ(std::memcmp(quantized->view.data, &stack.bytes[expert * 24 * 34], 24 * 34), 0);
    const LoadedMatrix expanded = (*checkpoint)->Read(name);
    const auto* values = static_cast<const float*>(expanded.view.data);
    for (int i = 0; i < 24 * 32; ++i) ASSERT_EQ(values[i], expert * 24 + i / 32);
  }
}

TEST(GgufMixtureTest, RefusesWhatIsMissingOrNotSupported) {
  const auto error_of = [](const GgufWriter& writer) {
    const TempDirectory directory;
    return std::string(
        Checkpoint::Open(directory.Write("m.gguf", writer.Bytes())).status().message());
  };
  GgufWriter writer = MixtureGguf("qwen3moe");
  writer.RemoveKey("qwen3moe.expert_used_count");
  EXPECT_THAT(error_of(writer), HasSubstr("'qwen3moe.expert_used_count' is missing"));
  writer = MixtureGguf("qwen3moe");
  writer.Uint32("qwen3moe.expert_gating_func", 2);
  EXPECT_THAT(error_of(writer), HasSubstr("expert_gating_func' is 2: supported is 1"));
  writer = MixtureGguf("qwen3moe");
  writer.Float32("qwen3moe.expert_weights_scale", 2.5f);
  EXPECT_THAT(error_of(writer), HasSubstr("expert_weights_scale' is 2.5: supported is 1"));
  writer = MixtureGguf("qwen2moe");
  writer.RemoveTensor("blk.1.ffn_down_exps.weight");
  EXPECT_THAT(error_of(writer), HasSubstr("'blk.1.ffn_down_exps.weight': tensor is missing"));
  writer = MixtureGguf("qwen2moe");
  writer.Uint32("qwen2moe.expert_count", 2);
  EXPECT_THAT(error_of(writer), HasSubstr("'blk.1.ffn_gate_inp.weight': shape [3, 32]"));
  writer = TinyGguf();
  writer.Uint32("llama.expert_count", 8);
  EXPECT_THAT(error_of(writer), HasSubstr("'llama.expert_count' is 8: supported is 0"));
}

}  // namespace
}  // namespace structattn
