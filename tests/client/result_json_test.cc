// Result lines hold every field of the contract, and are JSON whatever the bytes.
#include "client/result_json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace structattn::client {
namespace {

Generation SampleGeneration() {
  Generation generation;
  Continued& first = generation.continuations.front();
  first.text = "Paris";
  first.token_ids = {7};
  first.logprobs = {-0.5f};
  generation.started.add_prompt_token_ids(3);
  generation.started.add_group_ids(1);
  generation.started.add_position_ids(0);
  generation.started.mutable_provenance()->set_seed(9);
  generation.finished.set_reason(v1::FINISH_REASON_STOP_STRING);
  generation.finished.mutable_usage()->set_generated_tokens(1);
  generation.finished.mutable_timings()->set_prefill_ms(2.5);
  return generation;
}

TEST(ResultJsonTest, GenerationHasAllFields) {
  const PromptInput input{.id = "x", .answers = {"a"}, .prompt = {}};
  const Json json = GenerationJson(input, SampleGeneration());
  for (const char* field :
       {"id", "text", "token_ids", "logprobs", "finish_reason", "prompt_token_ids", "group_ids",
        "position_ids", "usage", "timings_ms", "provenance", "answers"}) {
    EXPECT_TRUE(json.contains(field)) << field;
  }
  EXPECT_EQ(json["finish_reason"], "stop_string");
  EXPECT_EQ(json["timings_ms"]["prefill"], 2.5);
  EXPECT_EQ(json["usage"]["cached_tokens"], 0);
  EXPECT_FALSE(json.contains("top_logprobs"));
}

TEST(ResultJsonTest, TopLogprobsOnlyWhenAskedFor) {
  Generation generation = SampleGeneration();
  v1::TokenLogprob* entry = generation.continuations[0].top_logprobs.emplace_back().add_entries();
  entry->set_token_id(7);
  entry->set_logprob(-0.5f);
  const Json json = GenerationJson({.id = nullptr, .answers = nullptr, .prompt = {}}, generation);
  EXPECT_EQ(json["top_logprobs"][0][0]["token_id"], 7);
  EXPECT_TRUE(json["id"].is_null());
  EXPECT_FALSE(json.contains("answers"));
}

TEST(ResultJsonTest, SeveralContinuationsAreAllThereAndTheFirstIsOnTop) {
  const PromptInput input{.id = nullptr, .answers = nullptr, .prompt = {}};
  Generation generation = SampleGeneration();
  EXPECT_FALSE(GenerationJson(input, generation).contains("continuations"));
  Continued& second = generation.continuations.emplace_back();
  second.group = 2;
  second.text = "Rome";
  second.reason = v1::FINISH_REASON_LENGTH;
  const Json json = GenerationJson(input, generation);
  EXPECT_EQ(json["text"], "Paris");
  ASSERT_EQ(json["continuations"].size(), 2u);
  EXPECT_EQ(json["continuations"][0]["text"], "Paris");
  EXPECT_EQ(json["continuations"][1]["text"], "Rome");
  EXPECT_EQ(json["continuations"][1]["group"], 2);
  EXPECT_EQ(json["continuations"][1]["finish_reason"], "length");
}

TEST(ResultJsonTest, FusionNamesItsMembersAndWhatTheyThought) {
  const PromptInput input{.id = nullptr, .answers = nullptr, .prompt = {}};
  Generation generation = SampleGeneration();
  EXPECT_FALSE(GenerationJson(input, generation).contains("fusion"));
  v1::FusionMember* member = generation.finished.add_fusion_members();
  member->set_group(3);
  member->set_weight(0.25);
  member->set_greedy_text("Rome");
  member->set_agreeing_samples(2);
  generation.finished.add_fusion_members();
  v1::MemberLogprobs& token = generation.continuations[0].member_logprobs.emplace_back();
  token.add_logprobs(-1.5f);
  token.add_logprobs(-0.5f);
  const Json fusion = GenerationJson(input, generation)["fusion"];
  ASSERT_EQ(fusion["members"].size(), 2u);
  EXPECT_EQ(
      fusion["members"][0],
      Json({{"group", 3}, {"weight", 0.25}, {"greedy_text", "Rome"}, {"agreeing_samples", 2}}));
  EXPECT_EQ(fusion["member_logprobs"], Json({{-1.5, -0.5}}));
}

TEST(ResultJsonTest, ScoresHaveTheFieldsOfTheContract) {
  v1::ScoreResponse response;
  v1::ContinuationScore* score = response.add_scores();
  score->set_logprob(-1.5);
  score->set_is_greedy(true);
  score->mutable_tokens()->add_token_ids(7);
  score->mutable_tokens()->add_logprobs(-1.5f);
  score->mutable_tokens()->add_ranks(1);
  const Json json = ScoresJson({.id = 4, .answers = {"a"}, .prompt = {}}, response);
  EXPECT_EQ(json["id"], 4);
  EXPECT_EQ(json["answers"][0], "a");
  const Json& first = json["scores"][0];
  EXPECT_EQ(first["logprob"], -1.5);
  EXPECT_EQ(first["token_logprobs"][0], -1.5);
  EXPECT_EQ(first["token_ids"][0], 7);
  EXPECT_EQ(first["ranks"][0], 1);
  EXPECT_EQ(first["is_greedy"], true);
}

TEST(ResultJsonTest, InspectionEncodesBytesAsBase64) {
  v1::InspectResponse response;
  v1::PromptToken* token = response.add_tokens();
  token->set_bytes("\xff\x00z", 3);
  token->set_segment(-1);
  response.add_visible()->add_groups(0);
  response.set_visible_pairs(1);
  response.set_causal_pairs(1);
  const Json json = InspectionJson({.id = 3, .answers = nullptr, .prompt = {}}, response);
  EXPECT_EQ(json["tokens"][0]["bytes"], "/wB6");
  EXPECT_EQ(json["tokens"][0]["segment"], -1);
  EXPECT_EQ(json["visible"], Json::parse("[[0]]"));
  EXPECT_EQ(json["id"], 3);
}

TEST(ResultJsonTest, ErrorsCarryTheFieldOfTheDetails) {
  google::rpc::BadRequest bad_request;
  bad_request.add_field_violations()->set_field("segments[3].group");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  google::rpc::Status wire;
  wire.add_details()->PackFrom(bad_request);
  wire.add_details()->PackFrom(retry);
  const grpc::Status status(grpc::StatusCode::INVALID_ARGUMENT, "no", wire.SerializeAsString());
  const Json json = ErrorJson("x", DescribeError(status));
  EXPECT_EQ(Line(json), R"({"id":"x","error":{"code":"INVALID_ARGUMENT","message":"no",)"
                        R"("field":"segments[3].group"}})");
  EXPECT_EQ(GetErrorDetail(status).retry_delay, std::chrono::milliseconds(2000));
}

TEST(ResultJsonTest, LinesAreJsonWhateverTheBytes) {
  EXPECT_EQ(Line(Json{{"text", "a\xff\n"}}), "{\"text\":\"a\uFFFD\\n\"}");
}

}  // namespace
}  // namespace structattn::client
