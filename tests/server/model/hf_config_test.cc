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
  EXPECT_EQ(config.rope.theta, 500000.0);
  const auto& scaling = std::get<Llama3RopeScaling>(config.rope.scaling);
  EXPECT_EQ(scaling.factor, 8.0);
  EXPECT_EQ(scaling.original_max_position_embeddings, 8192.0);
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
  EXPECT_EQ(config.rope.theta, 1e6) << "the theta inside wins";
  const auto& scaling = std::get<Llama3RopeScaling>(config.rope.scaling);
  EXPECT_EQ(scaling.factor, 32.0);
  EXPECT_EQ(scaling.original_max_position_embeddings, 64.0) << "the context length";
  EXPECT_EQ(config.dtype, DType::kFloat16);
}

TEST(HfConfigTest, TheOldScalingWinsOverTheNewParameters) {
  const ModelConfig config = Parsed(With({{"rope_parameters", {{"rope_type", "yarn"}}},
                                          {"rope_scaling", {{"rope_type", "default"}}}}));
  EXPECT_TRUE(std::holds_alternative<DefaultRope>(config.rope.scaling));
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
  EXPECT_EQ(llama.rope.theta, 10000.0);
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

TEST(HfConfigTest, GenerationEndsAtTheIdsOfBothFiles) {
  const auto ends = [](const Json& config, std::string_view generation) {
    return Parsed(config, generation).eos_token_ids;
  };
  EXPECT_THAT(ends(TinyConfig(), ""), ElementsAre(256));
  EXPECT_THAT(ends(TinyConfig(), R"({"eos_token_id": [3, 4]})"), ElementsAre(3, 4, 256));
  EXPECT_THAT(ends(TinyConfig(), R"({"eos_token_id": 5})"), ElementsAre(5, 256));
  EXPECT_THAT(ends(TinyConfig(), R"({"eos_token_id": [256, 5]})"), ElementsAre(256, 5));
  EXPECT_THAT(ends(TinyConfig(), R"({"temperature": 1})"), ElementsAre(256));
  const Json null = With({{"eos_token_id", nullptr}});
  EXPECT_THAT(ends(null, ""), IsEmpty());
  EXPECT_THAT(ends(null, R"({"eos_token_id": 5})"), ElementsAre(5));
  Json missing = TinyConfig();
  missing.erase("eos_token_id");
  EXPECT_THAT(ends(missing, ""), ElementsAre(2)) << "LlamaConfig's default";
  EXPECT_THAT(ends(missing, R"({"eos_token_id": 5})"), ElementsAre(5));
}

TEST(HfConfigTest, AnEndThatCannotBeEmittedIsIgnoredWithAWarning) {
  const ModelConfig config =
      Parsed(With({{"eos_token_id", {1, -1}}}),
             R"({"eos_token_id": [272, 271, 18446744073709551615], "other": NaN})");
  EXPECT_THAT(config.eos_token_ids, ElementsAre(271, 1));
  EXPECT_THAT(config.warnings,
              ElementsAre("generation_config.json: eos_token_id 272 is ignored: the model emits "
                          "the ids 0 to 271",
                          HasSubstr("eos_token_id 9223372036854775807 is ignored"),
                          HasSubstr("config.json: eos_token_id -1 is ignored")));
}

TEST(HfConfigTest, ReadsLlama1AndMistral) {
  EXPECT_EQ(Parsed(With({{"architectures", {"LLaMAForCausalLM"}}})).architecture, "llama");
  const ModelConfig mistral = Parsed({{"model_type", "mistral"}, {"attention_bias", true}});
  EXPECT_EQ(mistral.intermediate_size, 14336);
  EXPECT_EQ(mistral.kv_heads, 8);
  EXPECT_EQ(mistral.head_dim, 128);
  EXPECT_EQ(mistral.context_length, 131072);
  EXPECT_FALSE(mistral.qkv_bias || mistral.output_bias);
  EXPECT_THAT(mistral.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(mistral.sliding_window, 4096) << "the default of a missing key";
}

Json Mistral(const Json& patch) { return Qwen("MistralForCausalLM", "mistral", patch); }
Json Qwen2(const Json& patch) { return Qwen("Qwen2ForCausalLM", "qwen2", patch); }

TEST(HfConfigTest, ReadsWindows) {
  const ModelConfig everywhere = Parsed(Mistral({{"sliding_window", 20}}));
  EXPECT_EQ(everywhere.sliding_window, 20);
  EXPECT_TRUE(everywhere.HasWindow(0) && everywhere.HasWindow(1));
  const ModelConfig upper = Parsed(
      Qwen2({{"use_sliding_window", true}, {"sliding_window", 20}, {"max_window_layers", 1}}));
  EXPECT_EQ(upper.sliding_window, 20);
  EXPECT_TRUE(!upper.HasWindow(0) && upper.HasWindow(1));
  const ModelConfig named =
      Parsed(Qwen2({{"use_sliding_window", true},
                    {"sliding_window", 20},
                    {"max_window_layers", 1},
                    {"layer_types", {"sliding_attention", "full_attention"}}}));
  EXPECT_TRUE(named.HasWindow(0) && !named.HasWindow(1));
}

// TinyConfig has two layers and a context of 64 tokens.
TEST(HfConfigTest, WindowsThatNobodyUsesAreNone) {
  const Json full = {"full_attention", "full_attention"};
  const Json cases[] = {
      Mistral({{"sliding_window", nullptr}}),
      Mistral({{"sliding_window", 64}}),
      Mistral({{"sliding_window", nullptr}, {"layer_types", full}}),
      Qwen2({{"use_sliding_window", false}, {"sliding_window", 20}, {"max_window_layers", 0}}),
      Qwen2({{"use_sliding_window", true}, {"sliding_window", nullptr}, {"max_window_layers", 0}}),
      Qwen2({{"use_sliding_window", true}, {"sliding_window", 20}, {"max_window_layers", 2}}),
      Qwen2({{"use_sliding_window", true}, {"sliding_window", 20}}),
      Qwen2({{"use_sliding_window", true}, {"sliding_window", 20}, {"layer_types", full}}),
      With({{"use_sliding_window", true}, {"sliding_window", 20}, {"layer_types", full}}),
  };
  for (const Json& config : cases) {
    EXPECT_EQ(Parsed(config).sliding_window, kNoWindow) << config;
    EXPECT_FALSE(Parsed(config).HasWindow(1));
  }
}

TEST(HfConfigTest, RefusesWindowsByName) {
  struct Case {
    Json config;
    std::string message;
  };
  const Case cases[] = {
      {Mistral({{"sliding_window", 0}}), "sliding_window 0: allowed are 1 and more"},
      {Mistral({{"sliding_window", "20"}}), "sliding_window is"},
      {Mistral({{"sliding_window", 20}, {"layer_types", {"sliding_attention", "full_attention"}}}),
       "layer_types names full_attention"},
      {Qwen2({{"layer_types", {"sliding_attention", "full_attention"}}}),
       "layer_types names sliding_attention, but no sliding window is in use"},
      {Qwen2({{"use_sliding_window", true}, {"layer_types", {"sliding_attention"}}}),
       "layer_types has 1 entries, num_hidden_layers is 2"},
      {Qwen2({{"layer_types", {"chunked_attention", "full_attention"}}}), "chunked_attention"},
      {Qwen2({{"layer_types", "sliding_attention"}}), "layer_types is"},
  };
  for (const Case& broken : cases) {
    EXPECT_THAT(ErrorOf(broken.config), HasSubstr(broken.message)) << broken.config;
  }
}

// A stretched rope stretches the context.
TEST(HfConfigTest, ReadsTheRopeTypes) {
  const ModelConfig yarn = Parsed(
      With({{"rope_scaling",
             {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}}}}));
  EXPECT_EQ(std::get<YarnRopeScaling>(yarn.rope.scaling).factor, 4.0);
  EXPECT_EQ(yarn.context_length, 128);
  const ModelConfig linear = Parsed(With({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}));
  EXPECT_EQ(std::get<LinearRopeScaling>(linear.rope.scaling).factor, 2.0);
  EXPECT_EQ(linear.context_length, 128);
  const ModelConfig dynamic =
      Parsed(With({{"rope_parameters", {{"rope_type", "dynamic"}, {"factor", 3.0}}}}));
  EXPECT_EQ(DynamicRopeLength(dynamic.rope.scaling), 64);
  EXPECT_EQ(dynamic.context_length, 192);
}

TEST(HfConfigTest, BosIsATokenThatTheModelEmbeds) {
  EXPECT_EQ(Parsed(With({{"bos_token_id", 255}})).bos_token_id, 255);
  for (const Json& id : {Json(nullptr), Json(-1), Json(272), Json("1"), Json({1})}) {
    EXPECT_EQ(Parsed(With({{"bos_token_id", id}})).bos_token_id, std::nullopt) << id;
  }
}

TEST(HfConfigTest, RefusesByName) {
  const Json llama3 = {{"rope_type", "llama3"}, {"factor", 8.0}};
  struct Case {
    Json patch;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{{"architectures", {"GemmaForCausalLM"}}, {"model_type", "gemma"}},
       "architecture 'GemmaForCausalLM' of model_type 'gemma': supported are LlamaForCausalLM "
       "(llama), "},
      {{{"architectures", {"LlamaForSequenceClassification"}}}, "LlamaForSequenceClassification"},
      {{{"architectures", {"Qwen2ForCausalLM"}}}, "'Qwen2ForCausalLM' of model_type 'llama'"},
      {{{"architectures", "LlamaForCausalLM"}}, "architectures is"},
      {{{"hidden_act", "gelu"}}, "hidden_act 'gelu': supported is silu"},
      {{{"quantization_config", {{"quant_method", "bitsandbytes"}}}}, "'bitsandbytes': supported"},
      {{{"layer_types", {"full_attention", "sliding_attention"}}}, "no sliding window is in use"},
      {{{"rope_scaling", {{"type", "linear"}}}}, "rope_type linear without factor"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}}}, "rope factor 0.5: allowed"},
      {{{"rope_scaling", {{"rope_type", "dynamic"}}}}, "rope_type dynamic without factor"},
      {{{"rope_parameters", {{"rope_type", "yarn"}, {"factor", "4"}}}}, "factor is"},
      {{{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4.0}, {"beta_slow", -1.0}}}},
       "beta_slow -1: allowed"},
      {{{"rope_parameters", {{"rope_type", "longrope"}}}}, "rope_type 'longrope': supported are"},
      {{{"rope_scaling", {{"type", "su"}}}}, "rope_type 'su'"},
      {{{"rope_scaling", {{"type", "mrope"}}}}, "rope_type 'mrope'"},
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
      {{{"eos_token_id", "</s>"}}, "eos_token_id '\\\"</s>\\\"': an id or a list of ids is needed"},
      {{{"eos_token_id", 1.5}}, "eos_token_id '1.5'"},
  };
  for (const Case& broken : cases) {
    const std::string error = ErrorOf(With(broken.patch));
    EXPECT_THAT(error, HasSubstr(broken.message)) << broken.patch;
    EXPECT_THAT(error, HasSubstr("config.json: "));
  }
  EXPECT_THAT(ErrorOf(Json{{"vocab_size", 10}}), HasSubstr("architecture"));
  EXPECT_THAT(ErrorOf(TinyConfig(), R"({"eos_token_id": true})"),
              HasSubstr("generation_config.json: eos_token_id 'true'"));
}

TEST(HfConfigTest, NumbersThatJsonDoesNotHaveAreRefusedWhereTheyCount) {
  const auto with = [](std::string_view key, std::string_view number) {
    return R"({"model_type": "llama", ")" + std::string(key) + "\": " + std::string(number) + "}";
  };
  for (const std::string_view number : {"NaN", "Infinity", "-Infinity"}) {
    EXPECT_THAT(std::string(ParseModelConfig(with("rms_norm_eps", number), "").status().message()),
                AllOf(HasSubstr("config.json: rms_norm_eps is"), HasSubstr(number),
                      HasSubstr("a number is needed")));
    const auto unused = ParseModelConfig(with("initializer_range", number), "");
    EXPECT_TRUE(unused.ok()) << unused.status();
  }
  EXPECT_THAT(std::string(ParseModelConfig(with("rms_norm_eps", "1e999"), "").status().message()),
              HasSubstr("config.json: not valid JSON"));
}

}  // namespace
}  // namespace structattn
