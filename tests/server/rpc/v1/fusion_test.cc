// Generate with fusion over a real connection, with a model that costs nothing and is predictable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/rpc/v1/request_codec.h"
#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/prepared.h"

namespace structattn::rpc {
namespace {

using ::testing::ElementsAreArray;

engine::GenerateRequest Decode(const v1::GenerateRequest& request) {
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  auto decoded = Prepared(request, *fake.model);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  return *std::move(decoded);
}

v1::GenerateRequest FusedRequest(v1::FusionMethod method, int max_tokens = 12) {
  v1::GenerateRequest request = GoodRequest(max_tokens);
  request.mutable_fusion()->set_method(method);
  return request;
}

// The whole answer is the definition's, with these weights.
void ExpectFused(const v1::GenerateRequest& request, const StreamResult& result,
                 const std::vector<double>& weights) {
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_TRUE(result.InOrder());
  std::vector<float> logprobs;
  std::vector<std::vector<float>> members;
  for (const v1::GenerateResponse& response : result.responses) {
    logprobs.insert(logprobs.end(), response.chunk().logprobs().begin(),
                    response.chunk().logprobs().end());
    for (const v1::MemberLogprobs& token : response.chunk().member_logprobs()) {
      members.emplace_back(token.logprobs().begin(), token.logprobs().end());
    }
  }
  const engine::fake::Expected expected =
      engine::fake::ExpectedFusion(Decode(request), kTestContextLength, weights);
  EXPECT_EQ(result.TokenIds(), expected.token_ids);
  EXPECT_EQ(result.Text(), expected.text);
  EXPECT_EQ(logprobs, expected.logprobs);
  EXPECT_EQ(members, expected.member_logprobs);
  std::vector<double> told;
  for (const v1::FusionMember& member : result.finished().fusion_members()) {
    told.push_back(member.weight());
  }
  EXPECT_EQ(told, weights);
  EXPECT_EQ(result.finished().continuations_size(), 1);
}

TEST(Fusion, OfPerParaphrasePromptsByAllMethods) {
  InProcessServer server;
  for (const v1::FusionMethod method : {v1::FUSION_METHOD_AVG, v1::FUSION_METHOD_MAX}) {
    const v1::GenerateRequest request = FusedRequest(method);
    ExpectFused(request, RunGenerate(server.inference(), request), {0.5, 0.5});
  }
  for (const v1::FusionMethod method :
       {v1::FUSION_METHOD_WEIGHTED_AVG, v1::FUSION_METHOD_WEIGHTED_MAX}) {
    v1::GenerateRequest request = FusedRequest(method);
    request.mutable_fusion()->add_weights(1e300);
    request.mutable_fusion()->add_weights(3e300);
    ExpectFused(request, RunGenerate(server.inference(), request), {0.25, 0.75});
  }
}

TEST(Fusion, OfBranchesUnderTheStructure) {
  InProcessServer server;
  v1::GenerateRequest request = FusedRequest(v1::FUSION_METHOD_AVG);
  request.mutable_fusion()->set_source(v1::FUSION_SOURCE_BRANCHES);
  request.add_branches()->set_group(2);
  request.add_branches()->set_group(9);
  request.mutable_branches(1)->set_branch_cue("say: ");
  ExpectFused(request, RunGenerate(server.inference(), request), {0.5, 0.5});
}

TEST(Fusion, OfOneParaphraseIsThePlainCausalAnswer) {
  InProcessServer server;
  v1::GenerateRequest request = FusedRequest(v1::FUSION_METHOD_MAX);
  request.mutable_prompt()->mutable_segments(2)->set_paraphrase_index(0);
  const StreamResult fused = RunGenerate(server.inference(), request);
  ExpectFused(request, fused, {1.0});
  request.clear_fusion();
  request.mutable_prompt()->mutable_rule()->set_preset(v1::RULE_PRESET_CAUSAL);
  EXPECT_EQ(RunGenerate(server.inference(), request).TokenIds(), fused.TokenIds());
}

TEST(Fusion, WeighsByConfidence) {
  InProcessServer server;
  v1::GenerateRequest request = FusedRequest(v1::FUSION_METHOD_WEIGHTED_AVG, /*max_tokens=*/3);
  request.mutable_fusion()->mutable_confidence()->set_samples(20);
  request.mutable_fusion()->mutable_confidence()->set_temperature(0.05f);
  request.mutable_sampling()->set_seed(3);
  const StreamResult result = RunGenerate(server.inference(), request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  std::vector<double> weights;
  int agreeing = 0;
  for (const v1::FusionMember& member : result.finished().fusion_members()) {
    EXPECT_FALSE(member.greedy_text().empty());
    agreeing += member.agreeing_samples();
  }
  ASSERT_GT(agreeing, 0);
  for (const v1::FusionMember& member : result.finished().fusion_members()) {
    weights.push_back(static_cast<double>(member.agreeing_samples()) / agreeing);
  }
  ExpectFused(request, result, weights);
  EXPECT_EQ(result.finished().usage().generated_tokens(), 3 + 2 * 21 * 3);
}

}  // namespace
}  // namespace structattn::rpc
