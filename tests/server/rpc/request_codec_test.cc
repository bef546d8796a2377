// Every check of server/rpc/request_codec: one row per bad input, with field and reason.
#include "server/rpc/request_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/engine/field_error.h"
#include "tests/server/rpc/bad_requests.h"
#include "tests/server/rpc/in_process_server.h"

namespace structattn {
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
  ASSERT_TRUE(DecodeGenerateRequest(request, *model, {}).ok());
  GetParam().spoil(&request);
  const absl::Status status = DecodeGenerateRequest(request, *model, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::optional<engine::FieldErrorDetail> detail = engine::GetFieldErrorDetail(status);
  ASSERT_TRUE(detail.has_value()) << status;
  EXPECT_EQ(detail->field, GetParam().field);
  EXPECT_EQ(detail->reason, GetParam().reason);
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

  const absl::StatusOr<engine::GenerateRequest> decoded =
      DecodeGenerateRequest(request, *TestModel(), {});
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
  EXPECT_EQ(decoded->deadline - decoded->arrival, absl::Milliseconds(1500));
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
  const absl::StatusOr<engine::GenerateRequest> decoded =
      DecodeGenerateRequest(request, *TestModel(), {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->sampling.temperature, 0.0f);
  EXPECT_EQ(decoded->sampling.top_p, 1.0f);
  EXPECT_EQ(decoded->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(decoded->sampling.seed, 0u);
  EXPECT_EQ(decoded->stopping.max_tokens, 128);
  EXPECT_FALSE(decoded->stopping.ignore_eos);
  EXPECT_EQ(decoded->deadline, absl::InfiniteFuture());
}

TEST(DecodeGenerateRequest, TheDefaultOfMaxTokensFitsASmallContext) {
  engine::fake::FakeModel fake(40);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  v1::GenerateRequest request = GoodRequest();
  request.clear_stopping();
  const absl::StatusOr<engine::GenerateRequest> decoded =
      DecodeGenerateRequest(request, *fake.model, {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->stopping.max_tokens, 40);
}

TEST(DecodeGenerateRequest, MaxTokensBeyondTheContextAreCutToIt) {
  v1::GenerateRequest request = GoodRequest();
  request.mutable_stopping()->set_max_tokens(std::numeric_limits<int32_t>::max());
  const absl::StatusOr<engine::GenerateRequest> decoded =
      DecodeGenerateRequest(request, *TestModel(), {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->stopping.max_tokens, TestModel()->config.context_length);
}

TEST(DecodeSampling, EdgesOfRangesAreAllowed) {
  v1::Sampling sampling;
  for (float temperature : {0.0f, std::numeric_limits<float>::denorm_min(), 100.0f}) {
    sampling.set_temperature(temperature);
    EXPECT_TRUE(DecodeSampling(sampling, 10).ok()) << temperature;
  }
  sampling.set_top_p(std::numeric_limits<float>::denorm_min());
  sampling.set_min_p(1.0f);
  sampling.set_top_k(std::numeric_limits<int32_t>::max());
  sampling.set_repetition_penalty(100.0f);
  sampling.set_presence_penalty(-100.0f);
  sampling.set_frequency_penalty(100.0f);
  (*sampling.mutable_logit_bias())[9] = -1000.0f;
  EXPECT_TRUE(DecodeSampling(sampling, 10).ok());
}

TEST(DecodeSampling, DrawsASeedOnlyWhenItMatters) {
  v1::Sampling sampling;
  sampling.set_temperature(1.0f);
  EXPECT_NE(DecodeSampling(sampling, 10)->seed, DecodeSampling(sampling, 10)->seed);
  sampling.set_seed(0);
  EXPECT_EQ(DecodeSampling(sampling, 10)->seed, 0u);
  sampling.clear_seed();
  sampling.set_temperature(0.0f);
  EXPECT_EQ(DecodeSampling(sampling, 10)->seed, 0u);
}

TEST(DecodePrompt, RepeatedParaphraseIndexIsOneGroup) {
  v1::GenerateRequest request = GoodRequest();
  request.mutable_prompt()->mutable_segments(2)->set_paraphrase_index(0);
  const absl::StatusOr<engine::GenerateRequest> decoded =
      DecodeGenerateRequest(request, *TestModel(), {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->prompt.structure.used_groups(), 0b11u);
}

TEST(DecodePrompt, EnumsBecomeTheirNamesakes) {
  v1::Prompt prompt = GoodRequest().prompt();
  prompt.mutable_rule()->set_preset(v1::RULE_PRESET_ISOLATED);
  prompt.set_positions(v1::POSITION_POLICY_ALIGNED);
  prompt.set_tokenization(v1::TOKENIZATION_PER_SEGMENT);
  const absl::StatusOr<engine::Prompt> decoded = DecodePrompt(prompt);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<RulePreset>(decoded->rule), RulePreset::kIsolated);
  EXPECT_EQ(decoded->positions, PositionPolicy::kAligned);
  EXPECT_EQ(decoded->tokenization, engine::Tokenization::kPerSegment);
  EXPECT_EQ(decoded->segments[0].type, engine::SegmentType::kInstruction);
  EXPECT_EQ(decoded->segments[3].type, engine::SegmentType::kAnswerCue);
}

TEST(IsModelName, TakesItsAlphabetAndLength) {
  EXPECT_TRUE(IsModelName("SmolLM2-135M_q4.1"));
  EXPECT_TRUE(IsModelName(std::string(64, 'a')));
  for (const std::string& name :
       {std::string(), std::string(65, 'a'), std::string("a/b"), std::string("a b"),
        std::string("\xc3\xa9"), std::string("a\0", 2), std::string("a=b")}) {
    EXPECT_FALSE(IsModelName(name)) << name;
  }
}

}  // namespace
}  // namespace structattn
