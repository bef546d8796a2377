// The checks of ModelConfig.
#include "server/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace structattn {
namespace {

using ::testing::HasSubstr;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 100;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.context_length = 512;
  config.rms_norm_epsilon = 1e-5;
  config.rope.theta = 10000.0;
  return config;
}

TEST(ValidateModelConfigTest, AcceptsASoundConfig) {
  EXPECT_TRUE(ValidateModelConfig(SmallConfig()).ok());
}

TEST(ValidateModelConfigTest, SaysWhatWasGivenAndWhatIsAllowed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  struct Case {
    std::function<void(ModelConfig&)> change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& c) { c.vocab_size = 0; }, "vocab_size 0: allowed are 1 to 16777216"},
      {[](auto& c) { c.vocab_size = int64_t{1} << 40; }, "vocab_size 1099511627776: allowed"},
      {[](auto& c) { c.hidden_size = -64; }, "hidden_size -64: allowed are 1 to 65536"},
      {[](auto& c) { c.intermediate_size = 0; }, "intermediate_size 0: allowed"},
      {[](auto& c) { c.layers = 1025; }, "num_hidden_layers 1025: allowed are 1 to 1024"},
      {[](auto& c) { c.heads = 0; }, "num_attention_heads 0: allowed"},
      {[](auto& c) { c.kv_heads = 0; }, "num_key_value_heads 0: allowed"},
      {[](auto& c) { c.kv_heads = 3; }, "num_attention_heads 4: must be a multiple of the 3"},
      {[](auto& c) { c.kv_heads = 8; }, "num_attention_heads 4: must be a multiple of the 8"},
      {[](auto& c) { c.head_dim = 15; }, "head_dim 15: allowed are even numbers from 2 to 256"},
      {[](auto& c) { c.head_dim = 258; }, "head_dim 258: allowed"},
      {[](auto& c) { c.head_dim = 272; }, "head_dim 272: allowed"},
      {[](auto& c) { c.head_dim = 0; }, "head_dim 0: allowed"},
      {[](auto& c) { c.context_length = 0; }, "max_position_embeddings 0: allowed"},
      {[](auto& c) { c.rms_norm_epsilon = 0.0; }, "rms_norm_eps 0: allowed"},
      {[=](auto& c) { c.rms_norm_epsilon = nan; }, "rms_norm_eps nan: allowed"},
      {[=](auto& c) { c.rope.theta = infinity; }, "rope_theta inf: allowed"},
      {[](auto& c) { c.rope.theta = -1.0; }, "rope_theta -1: allowed"},
      {[=](auto& c) {
         c.rope.scaling = Llama3RopeScaling{nan, 1, 4, 8192};
       },
       "rope factor nan"},
      {[](auto& c) {
         c.rope.scaling = Llama3RopeScaling{8, 4, 4, 8192};
       },
       "low_freq_factor 4: must be below high_freq_factor 4"},
      {[](auto& c) {
         c.rope.scaling = Llama3RopeScaling{8, 1, 4, 0};
       },
       "original_max_position_embeddings 0: allowed"},
      {[](auto& c) {
         c.rope.frequency_divisors = {1, 2};
       },
       "2 rope frequency factors"},
      {[](auto& c) { c.rope.frequency_divisors.assign(8, 0.0f); }, "rope frequency factor 0"},
      {[](auto& c) {
         c.eos_token_ids = {2, 100};
       },
       "eos_token_id 100: allowed are 0 to 99"},
      {[](auto& c) { c.eos_token_ids = {-1}; }, "eos_token_id -1: allowed are 0 to 99"},
  };
  for (const Case& broken : cases) {
    ModelConfig config = SmallConfig();
    broken.change(config);
    EXPECT_THAT(std::string(ValidateModelConfig(config).message()), HasSubstr(broken.message));
  }
}

}  // namespace
}  // namespace structattn
