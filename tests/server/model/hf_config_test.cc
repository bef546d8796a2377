// config.json as transformers 5 and older versions write it, per family, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/model/model_config.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

ModelConfig Parsed(const Json& config, std::string_view generation = "") {
  auto parsed = ParseModelConfig(config.dump(), generation);
  EXPECT_TRUE(parsed.ok()) << parsed.status() << " " << config;
  return parsed.ok() ? *parsed : ModelConfig();
}

std::string ErrorOf(const Json& config, std::string_view generation = "") {
  return std::string(ParseModelConfig(config.dump(), generation).status().message());
}

// The tiny config with `patch` over it; null removes nothing, it stays as JSON's null.
Json With(const Json& patch) {
  Json config = TinyConfig();
  for (const auto& [key, value] : patch.items()) config[key] = value;
  return config;
}

Json Qwen(std::string_view architecture, std::string_view model_type, const Json& patch = {}) {
  Json config = With(patch);
  config["architectures"] = {architecture};
  config["model_type"] = model_type;
  return config;
}

TEST(HfConfigTest, ReadsTheOlderStyle) {
  const ModelConfig config = Parsed(With({{"rope_theta", 500000},
                                          {"rope_scaling",
                                           {{"type", "llama3"},
                                            {"factor", 8.0},
                                            {"low_freq_factor", 1.0},
                                            {"high_freq_factor", 4.0},
                                            {"original_max_position_embeddings", 8192}}},
                                          {"torch_dtype", "bfloat16"},
                                          {"attention_bias", true},
                                          {"mlp_bias", true},
                                          {"tie_word_embeddings", true}}));
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 272);
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 2);
  EXPECT_EQ(config.kv_heads, 1);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.context_length, 64);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-5);
  EXPECT_EQ(config.rope_theta, 500000.0);
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->factor, 8.0);
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 8192.0);
  EXPECT_EQ(config.dtype, DType::kBfloat16);
  EXPECT_TRUE(config.dtype_named);
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.qk_norm);
}

TEST(HfConfigTest, ReadsTheStyleOfVersion5) {
  Json json = With({{"rope_parameters",
                     {{"rope_type", "llama3"},
                      {"rope_theta", 1e6},
                      {"factor", 32.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0}}},
                    {"dtype", "float16"}});
  json.erase("torch_dtype");
  const ModelConfig config = Parsed(json);
  EXPECT_EQ(config.rope_theta, 1e6) << "the theta inside wins";
  EXPECT_EQ(config.rope_scaling->factor, 32.0);
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 64.0) << "the context length";
  EXPECT_EQ(config.dtype, DType::kFloat16);
}

TEST(HfConfigTest, TheOldScalingWinsOverTheNewParameters) {
  const ModelConfig config = Parsed(With({{"rope_parameters", {{"rope_type", "yarn"}}},
                                          {"rope_scaling", {{"rope_type", "default"}}}}));
  EXPECT_FALSE(config.rope_scaling.has_value());
}

// The defaults of LlamaConfig, Qwen2Config and Qwen3Config.
TEST(HfConfigTest, FillsInTheFamilysDefaults) {
  const ModelConfig llama = Parsed({{"model_type", "llama"}});
  EXPECT_EQ(llama.vocab_size, 32000);
  EXPECT_EQ(llama.intermediate_size, 11008);
  EXPECT_EQ(llama.kv_heads, 32);
  EXPECT_EQ(llama.head_dim, 128);
  EXPECT_EQ(llama.context_length, 2048);
  EXPECT_EQ(llama.rms_norm_epsilon, 1e-6);
  EXPECT_EQ(llama.rope_theta, 10000.0);
  EXPECT_FALSE(llama.tied_embeddings);
  EXPECT_FALSE(llama.dtype_named);
  EXPECT_THAT(llama.eos_token_ids, ElementsAre(2));

  const ModelConfig qwen2 = Parsed({{"model_type", "qwen2"}, {"hidden_size", 2048}});
  EXPECT_EQ(qwen2.vocab_size, 151936);
  EXPECT_EQ(qwen2.intermediate_size, 22016);
  EXPECT_EQ(qwen2.head_dim, 64);
  EXPECT_EQ(qwen2.context_length, 32768);
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias);
  EXPECT_THAT(qwen2.eos_token_ids, IsEmpty());

  const ModelConfig qwen3 = Parsed({{"model_type", "qwen3"}, {"hidden_size", 2048}});
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
}

TEST(HfConfigTest, NullMeansDerived) {
  EXPECT_EQ(Parsed(With({{"num_key_value_heads", nullptr}})).kv_heads, 2);
  EXPECT_EQ(Parsed(With({{"head_dim", nullptr}})).head_dim, 16);
  const Json qwen3 = Qwen("Qwen3ForCausalLM", "qwen3", {{"head_dim", nullptr}});
  EXPECT_EQ(Parsed(qwen3).head_dim, 16);
}

TEST(HfConfigTest, BiasesFollowTheFamily) {
  const ModelConfig qwen2 =
      Parsed(Qwen("Qwen2ForCausalLM", "qwen2", {{"attention_bias", false}, {"mlp_bias", true}}));
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.mlp_bias);
  const ModelConfig qwen3 = Parsed(Qwen("Qwen3ForCausalLM", "qwen3", {{"attention_bias", true}}));
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.output_bias);
}

TEST(HfConfigTest, EosComesFromTheGenerationConfigIfItNamesOne) {
  EXPECT_THAT(Parsed(TinyConfig()).eos_token_ids, ElementsAre(256));
  EXPECT_THAT(Parsed(TinyConfig(), R"({"eos_token_id": [3, 4]})").eos_token_ids, ElementsAre(3, 4));
  EXPECT_THAT(Parsed(TinyConfig(), R"({"eos_token_id": 5})").eos_token_ids, ElementsAre(5));
  EXPECT_THAT(Parsed(TinyConfig(), R"({"temperature": 1})").eos_token_ids, ElementsAre(256));
  EXPECT_THAT(Parsed(With({{"eos_token_id", nullptr}})).eos_token_ids, IsEmpty());
}

TEST(HfConfigTest, RefusesByName) {
  const Json llama3 = {{"rope_type", "llama3"}, {"factor", 8.0}};
  struct Case {
    Json patch;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{{"architectures", {"MistralForCausalLM"}}, {"model_type", "mistral"}},
       "architecture 'MistralForCausalLM' of model_type 'mistral': supported are"},
      {{{"architectures", {"LlamaForSequenceClassification"}}}, "LlamaForSequenceClassification"},
      {{{"architectures", {"Qwen2ForCausalLM"}}}, "'Qwen2ForCausalLM' of model_type 'llama'"},
      {{{"architectures", "LlamaForCausalLM"}}, "architectures is"},
      {{{"hidden_act", "gelu"}}, "hidden_act 'gelu': supported is silu"},
      {{{"quantization_config", {{"quant_method", "awq"}}}}, "quantization_config 'awq'"},
      {{{"use_sliding_window", true}}, "use_sliding_window true"},
      {{{"layer_types", {"full_attention", "sliding_attention"}}}, "sliding_attention"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}, "rope_type 'linear'"},
      {{{"rope_scaling", {{"rope_type", "dynamic"}}}}, "rope_type 'dynamic'"},
      {{{"rope_parameters", {{"rope_type", "yarn"}}}}, "rope_type 'yarn': supported are"},
      {{{"rope_parameters", {{"rope_type", "longrope"}}}}, "rope_type 'longrope'"},
      {{{"rope_parameters", llama3}}, "rope_type llama3 without low_freq_factor"},
      {{{"rope_parameters", {{"full_attention", Json::object()}}}}, "per layer type"},
      {{{"rope_scaling", "linear"}}, "rope_scaling is"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor 0.5: supported is 1"},
      {{{"torch_dtype", "float64"}}, "dtype 'float64': supported are"},
      {{{"hidden_size", "32"}}, "hidden_size is '\\\"32\\\"', an integer is needed"},
      {{{"hidden_size", 32.0}}, "hidden_size is '32.0', an integer is needed"},
      {{{"hidden_size", 33}}, "hidden_size 33: must be a multiple of the 2"},
      {{{"hidden_size", 18446744073709551615u}}, "below 2^63"},
      {{{"num_attention_heads", 0}}, "num_attention_heads 0: allowed"},
      {{{"num_attention_heads", -2}}, "num_attention_heads -2: allowed"},
      {{{"num_key_value_heads", 0}}, "num_key_value_heads 0: allowed"},
      {{{"head_dim", 0}}, "head_dim 0: allowed"},
      {{{"head_dim", 17}}, "head_dim 17: allowed"},
      {{{"rms_norm_eps", -1.0}}, "rms_norm_eps -1: allowed"},
      {{{"rms_norm_eps", "NaN"}}, "rms_norm_eps is"},
      {{{"tie_word_embeddings", 1}}, "tie_word_embeddings is '1', true or false is needed"},
      {{{"eos_token_id", 272}}, "eos_token_id '272': allowed are 0 to 271"},
      {{{"eos_token_id", {1, -1}}}, "eos_token_id '-1': allowed"},
      {{{"eos_token_id", 1.5}}, "eos_token_id '1.5'"},
  };
  for (const Case& broken : cases) {
    const std::string error = ErrorOf(With(broken.patch));
    EXPECT_THAT(error, HasSubstr(broken.message)) << broken.patch;
    EXPECT_THAT(error, HasSubstr("config.json: "));
  }
  EXPECT_THAT(ErrorOf(Json{{"vocab_size", 10}}), HasSubstr("architecture"));
  EXPECT_THAT(ErrorOf(TinyConfig(), R"({"eos_token_id": 9999})"),
              HasSubstr("generation_config.json: eos_token_id '9999'"));
}

TEST(HfConfigTest, RefusesNumbersThatJsonDoesNotHave) {
  for (const std::string_view number : {"NaN", "Infinity", "-Infinity", "1e999"}) {
    const std::string text =
        R"({"model_type": "llama", "rms_norm_eps": )" + std::string(number) + "}";
    EXPECT_THAT(std::string(ParseModelConfig(text, "").status().message()),
                HasSubstr("config.json: not valid JSON"));
  }
}

}  // namespace
}  // namespace structattn
