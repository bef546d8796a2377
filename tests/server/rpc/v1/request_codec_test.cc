// Every check of a Generate request, in codec and serving: one row per bad input, with field and
// reason; and what a good one becomes.
#include "server/rpc/v1/request_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/rpc/v1/prompt_codec.h"
#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/bad_requests.h"
#include "tests/server/rpc/v1/prepared.h"

namespace structattn::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::unique_ptr<Model> TestModel() {
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  return std::move(fake.model);
}

class BadRequestTest : public ::testing::TestWithParam<BadRequestCase> {};

TEST_P(BadRequestTest, NamesFieldReasonAndWhatIsAllowed) {
  v1::GenerateRequest request = GoodRequest();
  const std::unique_ptr<Model> model = TestModel();
  ASSERT_TRUE(Prepared(request, *model).ok());
  GetParam().spoil(&request);
  const absl::Status status = Prepared(request, *model).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status), GetParam().field) << status;
  EXPECT_EQ(ReasonOf(status), GetParam().reason);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message_part));
}

INSTANTIATE_TEST_SUITE_P(All, BadRequestTest, ::testing::ValuesIn(BadRequestCases()),
                         [](const auto& info) { return info.param.name; });

TEST(DecodeGenerateRequest, FillsEveryField) {
  v1::GenerateRequest request = GoodRequest();
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(4);
  sampling.set_top_p(0.75f);
  sampling.set_min_p(0.25f);
  sampling.set_repetition_penalty(1.5f);
  sampling.set_presence_penalty(-2.0f);
  sampling.set_frequency_penalty(3.0f);
  sampling.set_seed(~uint64_t{0});
  sampling.clear_logit_bias();
  (*sampling.mutable_logit_bias())[9] = -1.5f;
  (*sampling.mutable_logit_bias())[3] = 2.5f;
  v1::Stopping& stopping = *request.mutable_stopping();
  stopping.set_max_tokens(17);
  stopping.add_stop_strings("\n\n");
  stopping.add_stop_token_ids(5);
  request.mutable_output()->set_top_logprobs(20);
  request.set_generated_group(2);
  request.set_timeout_ms(1500);
  request.mutable_cache()->set_bypass(true);
  request.mutable_cache()->set_salt(std::string(256, 'x'));

  const absl::StatusOr<engine::GenerateRequest> decoded = Prepared(request, *TestModel());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->request_id, "r1");
  EXPECT_EQ(decoded->sampling.temperature, 0.5f);
  EXPECT_EQ(decoded->sampling.top_k, 4);
  EXPECT_EQ(decoded->sampling.top_p, 0.75f);
  EXPECT_EQ(decoded->sampling.min_p, 0.25f);
  EXPECT_EQ(decoded->sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(decoded->sampling.presence_penalty, -2.0f);
  EXPECT_EQ(decoded->sampling.frequency_penalty, 3.0f);
  EXPECT_EQ(decoded->sampling.seed, ~uint64_t{0});
  EXPECT_THAT(decoded->sampling.logit_bias, ElementsAre(Pair(3, 2.5f), Pair(9, -1.5f)));
  EXPECT_EQ(decoded->stopping.max_tokens, 17);
  EXPECT_THAT(decoded->stopping.stop_strings, ElementsAre("\n\n"));
  EXPECT_THAT(decoded->stopping.stop_token_ids, ElementsAre(5));
  EXPECT_TRUE(decoded->stopping.ignore_eos);
  EXPECT_EQ(decoded->top_logprobs, 20);
  EXPECT_EQ(decoded->generated_group, 2);
  EXPECT_TRUE(decoded->cache.bypass);
  EXPECT_EQ(decoded->cache.salt, std::string(256, 'x'));
  EXPECT_EQ(decoded->prompt.token_ids.size(), 31u);
  EXPECT_EQ(decoded->prompt.segment_count, request.prompt().segments_size());
  EXPECT_EQ(decoded->prompt.structure.groups()[8], 1);
}

TEST(DecodeGenerateRequest, DefaultsAreGreedyAnd128Tokens) {
  v1::GenerateRequest request = GoodRequest();
  request.clear_sampling();
  request.clear_stopping();
  const absl::StatusOr<engine::GenerateRequest> decoded = Prepared(request, *TestModel());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->sampling.temperature, 0.0f);
  EXPECT_EQ(decoded->sampling.top_p, 1.0f);
  EXPECT_EQ(decoded->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(decoded->sampling.seed, 0u);
  EXPECT_EQ(decoded->stopping.max_tokens, 128);
  EXPECT_FALSE(decoded->stopping.ignore_eos);
}

TEST(DecodeGenerateRequest, TheDefaultOfMaxTokensFitsASmallContext) {
  engine::fake::FakeModel fake(40);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  v1::GenerateRequest request = GoodRequest();
  request.clear_stopping();
  const absl::StatusOr<engine::GenerateRequest> decoded = Prepared(request, *fake.model);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->stopping.max_tokens, 40);
}

TEST(DecodeGenerateRequest, MaxTokensBeyondTheContextAreCutToIt) {
  v1::GenerateRequest request = GoodRequest();
  request.mutable_stopping()->set_max_tokens(std::numeric_limits<int32_t>::max());
  const absl::StatusOr<engine::GenerateRequest> decoded = Prepared(request, *TestModel());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->stopping.max_tokens, TestModel()->config.context_length);
}

// What `sampling` becomes in a request that is otherwise good.
absl::StatusOr<engine::SamplingParams> PreparedSampling(const v1::Sampling& sampling) {
  v1::GenerateRequest request = GoodRequest();
  *request.mutable_sampling() = sampling;
  const absl::StatusOr<engine::GenerateRequest> prepared = Prepared(request, *TestModel());
  if (!prepared.ok()) return prepared.status();
  return prepared->sampling;
}

TEST(PreparedSampling, EdgesOfRangesAreAllowed) {
  v1::Sampling sampling;
  for (float temperature : {0.0f, std::numeric_limits<float>::denorm_min(), 100.0f}) {
    sampling.set_temperature(temperature);
    EXPECT_TRUE(PreparedSampling(sampling).ok()) << temperature;
  }
  sampling.set_top_p(std::numeric_limits<float>::denorm_min());
  sampling.set_min_p(1.0f);
  sampling.set_top_k(std::numeric_limits<int32_t>::max());
  sampling.set_repetition_penalty(100.0f);
  sampling.set_presence_penalty(-100.0f);
  sampling.set_frequency_penalty(100.0f);
  (*sampling.mutable_logit_bias())[9] = -1000.0f;
  EXPECT_TRUE(PreparedSampling(sampling).ok());
}

TEST(PreparedSampling, DrawsASeedOnlyWhenItMatters) {
  v1::Sampling sampling;
  sampling.set_temperature(1.0f);
  EXPECT_NE(PreparedSampling(sampling)->seed, PreparedSampling(sampling)->seed);
  sampling.set_seed(0);
  EXPECT_EQ(PreparedSampling(sampling)->seed, 0u);
  sampling.clear_seed();
  sampling.set_temperature(0.0f);
  EXPECT_EQ(PreparedSampling(sampling)->seed, 0u);
}

TEST(DecodePrompt, RepeatedParaphraseIndexIsOneGroup) {
  v1::GenerateRequest request = GoodRequest();
  request.mutable_prompt()->mutable_segments(2)->set_paraphrase_index(0);
  const absl::StatusOr<engine::GenerateRequest> decoded = Prepared(request, *TestModel());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->prompt.structure.used_groups(), 0b11u);
}

TEST(DecodePrompt, EnumsBecomeTheirNamesakes) {
  v1::Prompt prompt = GoodRequest().prompt();
  prompt.mutable_rule()->set_preset(v1::RULE_PRESET_ISOLATED);
  prompt.set_positions(v1::POSITION_POLICY_ALIGNED);
  prompt.set_tokenization(v1::TOKENIZATION_PER_SEGMENT);
  const absl::StatusOr<engine::Prompt> decoded = DecodePrompt(prompt, {});
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<RulePreset>(decoded->rule), RulePreset::kIsolated);
  EXPECT_EQ(decoded->positions, PositionPolicy::kAligned);
  EXPECT_EQ(decoded->tokenization, engine::Tokenization::kPerSegment);
  EXPECT_EQ(decoded->segments[0].type, engine::SegmentType::kInstruction);
  EXPECT_EQ(decoded->segments[3].type, engine::SegmentType::kAnswerCue);
}

}  // namespace
}  // namespace structattn::rpc
