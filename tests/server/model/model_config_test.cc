// The checks of ModelConfig, and the rotary frequencies against those of transformers 5.23.
#include "server/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <span>

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
  config.rope_theta = 10000.0;
  return config;
}

// inv_freq of transformers' rotary embedding modules, as bits of float32.
// SmolLM2-135M: head_dim 64, theta 1e5.
constexpr uint32_t kSmolLm2[] = {
    0x3f800000, 0x3f32a506, 0x3ef953cf, 0x3eadfcff, 0x3e72d423, 0x3e297409, 0x3dec7fd6, 0x3da50956,
    0x3d6655c2, 0x3d20bc1d, 0x3ce054d2, 0x3c9c8b97, 0x3c5a7bf2, 0x3c187705, 0x3bd4ca15, 0x3b947dae,
    0x3b4f3e38, 0x3b109edb, 0x3ac9d75c, 0x3a8cd9db, 0x3a44948c, 0x3a092e02, 0x39bf74d7, 0x39859aa9,
    0x393a7753, 0x39021f2b, 0x38b59b1b, 0x387d75d4, 0x3830df52, 0x37f6da96, 0x37ac431d, 0x37706b6d};
// Llama-3.1-8B: head_dim 128, theta 5e5, llama3 scaling 8, 1, 4, 8192.
constexpr uint32_t kLlama31[] = {
    0x3f800000, 0x3f508ac1, 0x3f29e1c6, 0x3f0a6384, 0x3ee177bc, 0x3eb7ab7d, 0x3e959ee3, 0x3e73c461,
    0x3e4693b0, 0x3e21c3a0, 0x3e03c6a0, 0x3dd6b19c, 0x3daee4ad, 0x3d8e7898, 0x3d681e67, 0x3d3d1684,
    0x3d1a08c8, 0x3cfaf53f, 0x3ccc6f49, 0x3ca68939, 0x3c87a9c3, 0x3c5d06ec, 0x3c340d6d, 0x3c12ac7f,
    0x3beef74f, 0x3bc2aa76, 0x3b9e9402, 0x3b812e35, 0x3b527720, 0x3b0dfd06, 0x3ab3d11d, 0x3a60979e,
    0x3a0995d2, 0x39a3f108, 0x393b2dd2, 0x38c86886, 0x38a3418d, 0x3884fdbf, 0x3858ac81, 0x38308199,
    0x380fc8f8, 0x37ea426f, 0x37bed4f4, 0x379b7475, 0x377d45c3, 0x374e51f5, 0x3728126b, 0x3708ea0f,
    0x36df10c4, 0x36b5b687, 0x369406cb, 0x36712b80, 0x36447610, 0x36200a69, 0x36025f34, 0x35d46808,
    0x35ad07a7, 0x358cf400, 0x3565a54d, 0x353b12c7, 0x351864a7, 0x34f848c2, 0x34ca41b0, 0x34a4c2ff};
// Qwen3: head_dim 128, theta 1e6.
constexpr uint32_t kQwen3[] = {
    0x3f800000, 0x3f4e4bad, 0x3f263de0, 0x3f05f6ef, 0x3ed7e89b, 0x3eadfcff, 0x3e8c3504, 0x3e61f835,
    0x3e361887, 0x3e12bd91, 0x3dec7fd6, 0x3dbe94c6, 0x3d99940d, 0x3d778513, 0x3d47763f, 0x3d20bc1d,
    0x3d0186e3, 0x3cd0c1a8, 0x3ca8398b, 0x3c879008, 0x3c5a7bf2, 0x3c301052, 0x3c0de12d, 0x3be4aa46,
    0x3bb8449c, 0x3b947dae, 0x3b6f520e, 0x3b40dac5, 0x3b1b690d, 0x3afa78f0, 0x3ac9d75c, 0x3aa2a6f7,
    0x3a83126f, 0x3a533f28, 0x3a2a3b44, 0x3a092e02, 0x39dd1725, 0x39b229fb, 0x398f9272, 0x39676492,
    0x393a7753, 0x39164324, 0x38f22ce2, 0x38c327b5, 0x389d43a4, 0x387d75d4, 0x384c3fbe, 0x382497ab,
    0x3804a2b2, 0x37d5c441, 0x37ac431d, 0x378ad0ed, 0x375fba4f, 0x37344a0e, 0x371148e3, 0x36ea2732,
    0x36bcb0c1, 0x36980e02, 0x36751070, 0x36457bab, 0x361f23e4, 0x36003dec, 0x35ceaf79, 0x35a68e4c};

// LibTorch's vectorised power is up to one unit in the last place off the rounded one (see the
// header), so that is the tolerance.
void ExpectFrequencies(const ModelConfig& config, std::span<const uint32_t> expected) {
  const std::vector<float> frequencies = InverseFrequencies(config);
  ASSERT_EQ(frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto bits = static_cast<int64_t>(std::bit_cast<uint32_t>(frequencies[i]));
    EXPECT_LE(std::abs(bits - static_cast<int64_t>(expected[i])), 1) << "frequency " << i;
  }
}

TEST(InverseFrequenciesTest, EqualTransformersDefault) {
  ModelConfig config = SmallConfig();
  config.head_dim = 64;
  config.rope_theta = 1e5;
  ExpectFrequencies(config, kSmolLm2);
  config.head_dim = 128;
  config.rope_theta = 1e6;
  ExpectFrequencies(config, kQwen3);
}

TEST(InverseFrequenciesTest, EqualTransformersLlama3) {
  ModelConfig config = SmallConfig();
  config.head_dim = 128;
  config.rope_theta = 5e5;
  config.rope_scaling = Llama3RopeScaling{8.0, 1.0, 4.0, 8192.0};
  ExpectFrequencies(config, kLlama31);
}

TEST(InverseFrequenciesTest, DividesByTheGivenFactors) {
  ModelConfig config = SmallConfig();
  const std::vector<float> plain = InverseFrequencies(config);
  config.rope_frequency_divisors = {1, 1, 1, 1, 2, 4, 8, 8};
  const std::vector<float> divided = InverseFrequencies(config);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(divided[i], plain[i] / config.rope_frequency_divisors[i]);
  }
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
      {[](auto& c) { c.head_dim = 15; }, "head_dim 15: allowed are multiples of 16"},
      {[](auto& c) { c.head_dim = 24; }, "head_dim 24: allowed"},
      {[](auto& c) { c.head_dim = 272; }, "head_dim 272: allowed"},
      {[](auto& c) { c.head_dim = 0; }, "head_dim 0: allowed"},
      {[](auto& c) { c.context_length = 0; }, "max_position_embeddings 0: allowed"},
      {[](auto& c) { c.rms_norm_epsilon = 0.0; }, "rms_norm_eps 0: allowed"},
      {[=](auto& c) { c.rms_norm_epsilon = nan; }, "rms_norm_eps nan: allowed"},
      {[=](auto& c) { c.rope_theta = infinity; }, "rope_theta inf: allowed"},
      {[](auto& c) { c.rope_theta = -1.0; }, "rope_theta -1: allowed"},
      {[=](auto& c) {
         c.rope_scaling = Llama3RopeScaling{nan, 1, 4, 8192};
       },
       "rope factor nan"},
      {[](auto& c) {
         c.rope_scaling = Llama3RopeScaling{8, 4, 4, 8192};
       },
       "low_freq_factor 4: must be below high_freq_factor 4"},
      {[](auto& c) {
         c.rope_scaling = Llama3RopeScaling{8, 1, 4, 0};
       },
       "original_max_position_embeddings 0: allowed"},
      {[](auto& c) {
         c.rope_frequency_divisors = {1, 2};
       },
       "2 rope frequency factors"},
      {[](auto& c) { c.rope_frequency_divisors.assign(8, 0.0f); }, "rope frequency factor 0"},
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
