// Rotary frequencies and attention factors against those of transformers, for config.json in every
// spelling that it reads (testdata/rope.json, which make_rope_fixture.py writes).
#include "server/model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/model/model_config.h"

namespace structattn {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Fixture() {
  std::ifstream file(STRUCTATTN_SOURCE_DIR "/tests/server/model/testdata/rope.json");
  return Json::parse(file);
}

int64_t UnitsApart(float a, float b) {
  return std::abs(int64_t{std::bit_cast<int32_t>(a)} - int64_t{std::bit_cast<int32_t>(b)});
}

// LibTorch's vectorised power is up to one unit in the last place off the rounded one, which a
// blend of two frequencies can double. A length that is a tensor makes transformers compute theta
// itself in float: its power is off by as much, relative to an exponent of up to 24.
int64_t MostUnitsApart(const RopeScaling& scaling, int32_t length) {
  if (length > DynamicRopeLength(scaling)) return 4;
  return std::holds_alternative<YarnRopeScaling>(scaling) ? 2 : 1;
}

TEST(RopeScalingTest, FrequenciesEqualTransformers) {
  const Json fixture = Fixture();
  ASSERT_GE(fixture.size(), 17u);
  for (const Json& entry : fixture) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    const auto config = ParseModelConfig(entry["config"].dump(), "");
    ASSERT_TRUE(config.ok()) << config.status();
    const RopeConfig& rope = config->rope;
    const int32_t length = entry["length"];
    const std::vector<float> expected = entry["inv_freq"];
    const std::vector<float> computed = InverseFrequencies(rope, config->head_dim, length);
    ASSERT_EQ(computed.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LE(UnitsApart(computed[i], expected[i]), MostUnitsApart(rope.scaling, length))
          << "frequency " << i << ": " << computed[i] << ", " << expected[i];
    }
    EXPECT_EQ(RopeAttentionFactor(rope.scaling), entry["attention_factor"].get<float>());
  }
}

TEST(RopeScalingTest, DividesByTheGivenFactors) {
  RopeConfig rope{.theta = 1e4, .scaling = {}, .frequency_divisors = {}};
  const std::vector<float> plain = InverseFrequencies(rope, 16);
  rope.frequency_divisors = {1, 1, 1, 1, 2, 4, 8, 8};
  const std::vector<float> divided = InverseFrequencies(rope, 16);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(divided[i], plain[i] / rope.frequency_divisors[i]);
  }
}

TEST(RopeScalingTest, StretchesTheContextWithWhatWasTrained) {
  EXPECT_EQ(StretchedContext(DefaultRope(), 100), 100);
  EXPECT_EQ(StretchedContext(Llama3RopeScaling{8, 1, 4, 50}, 100), 100);
  EXPECT_EQ(StretchedContext(LinearRopeScaling{2.5}, 100), 250);
  EXPECT_EQ(StretchedContext(DynamicRopeScaling{4, 100}, 100), 400);
  EXPECT_EQ(StretchedContext(YarnRopeScaling{4, 100}, 100), 400);
  EXPECT_EQ(StretchedContext(YarnRopeScaling{2, 50}, 400), 400);
  EXPECT_EQ(StretchedContext(LinearRopeScaling{1e6}, 1 << 27), 1 << 27);
}

TEST(RopeScalingTest, OnlyDynamicDependsOnTheLength) {
  const RopeConfig rope{
      .theta = 1e4, .scaling = DynamicRopeScaling{2, 64}, .frequency_divisors = {}};
  EXPECT_EQ(DynamicRopeLength(rope.scaling), 64);
  EXPECT_EQ(InverseFrequencies(rope, 16, 64), InverseFrequencies(rope, 16));
  EXPECT_NE(InverseFrequencies(rope, 16, 65), InverseFrequencies(rope, 16));
  const RopeConfig yarn{.theta = 1e4, .scaling = YarnRopeScaling{2, 64}, .frequency_divisors = {}};
  EXPECT_EQ(InverseFrequencies(yarn, 16, 1000), InverseFrequencies(yarn, 16));
}

TEST(RopeScalingTest, RefusesWhatWouldDivideByZero) {
  const RopeConfig dynamic{
      .theta = 1e4, .scaling = DynamicRopeScaling{2, 64}, .frequency_divisors = {}};
  EXPECT_THAT(std::string(ValidateRope(dynamic, 2).message()),
              HasSubstr("rope_type 'dynamic' with head_dim 2"));
  const RopeConfig yarn{.theta = 1, .scaling = YarnRopeScaling{2, 64}, .frequency_divisors = {}};
  EXPECT_THAT(std::string(ValidateRope(yarn, 16).message()), HasSubstr("rope_theta 1"));
}

}  // namespace
}  // namespace structattn
