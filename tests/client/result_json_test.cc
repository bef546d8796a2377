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
  generation.text = "Paris";
  generation.token_ids = {7};
  generation.logprobs = {-0.5f};
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
  v1::TokenLogprob* entry = generation.top_logprobs.emplace_back().add_entries();
  entry->set_token_id(7);
  entry->set_logprob(-0.5f);
  const Json json = GenerationJson({.id = nullptr, .answers = nullptr, .prompt = {}}, generation);
  EXPECT_EQ(json["top_logprobs"][0][0]["token_id"], 7);
  EXPECT_TRUE(json["id"].is_null());
  EXPECT_FALSE(json.contains("answers"));
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
