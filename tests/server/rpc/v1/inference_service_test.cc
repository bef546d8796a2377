// InferenceService over a real connection, with a model that costs nothing and is predictable.
#include "server/rpc/v1/inference_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/bad_requests.h"

namespace structattn::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void ExpectGood(InProcessServer* server, const v1::GenerateRequest& request) {
  const StreamResult result = RunGenerate(server->inference(), request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_TRUE(result.InOrder());
  const engine::fake::Expected expected = ExpectedFor(request);
  EXPECT_EQ(result.TokenIds(), expected.token_ids);
  EXPECT_EQ(result.Text(), expected.text);
}

TEST(Generate, StreamsStartedThenChunksThenFinished) {
  InProcessServer server;
  const v1::GenerateRequest request = GoodRequest(20);
  const StreamResult result = RunGenerate(server.inference(), request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_TRUE(result.InOrder());
  const v1::Started& started = result.responses[0].started();
  EXPECT_EQ(started.prompt_token_ids_size(), 0);
  EXPECT_EQ(started.provenance().model(), "m");
  EXPECT_EQ(started.provenance().model_digest(), "d1");
  EXPECT_EQ(started.provenance().structure_digest().size(), 64u);
  EXPECT_EQ(started.provenance().dtype(), "float32");
  EXPECT_EQ(started.provenance().weight_format(), "fake weights");
  EXPECT_EQ(started.provenance().device(), "cpu");
  EXPECT_EQ(started.provenance().kernel(), "fake");
  EXPECT_EQ(started.provenance().version(), STRUCTATTN_VERSION);
  const engine::fake::Expected expected = ExpectedFor(request);
  EXPECT_EQ(result.TokenIds(), expected.token_ids);
  EXPECT_EQ(result.Text(), expected.text);
  EXPECT_EQ(result.finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(result.finished().usage().prompt_tokens(), 31);
  EXPECT_EQ(result.finished().usage().generated_tokens(), 20);
  EXPECT_GT(result.finished().timings().prefill_ms(), 0.0);
}

TEST(Generate, EchoesThePromptAndItsStructure) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest();
  request.mutable_output()->set_echo(true);
  request.mutable_output()->set_top_logprobs(3);
  const StreamResult result = RunGenerate(server.inference(), request);
  ASSERT_TRUE(result.InOrder());
  const v1::Started& started = result.responses[0].started();
  ASSERT_EQ(started.prompt_token_ids_size(), 31);
  ASSERT_EQ(started.group_ids_size(), 31);
  ASSERT_EQ(started.position_ids_size(), 31);
  EXPECT_EQ(started.prompt_token_ids(0), 'A');
  EXPECT_EQ(started.group_ids(7), 0);
  EXPECT_EQ(started.group_ids(8), 1);
  EXPECT_EQ(started.group_ids(17), 2);
  EXPECT_EQ(started.position_ids(30), 30);
  for (const v1::GenerateResponse& response : result.responses) {
    if (!response.has_chunk()) continue;
    ASSERT_EQ(response.chunk().top_logprobs_size(), response.chunk().token_ids_size());
    for (int i = 0; i < response.chunk().token_ids_size(); ++i) {
      ASSERT_EQ(response.chunk().top_logprobs(i).entries_size(), 3);
      EXPECT_GE(response.chunk().top_logprobs(i).entries(0).logprob(),
                response.chunk().logprobs(i));
    }
  }
}

TEST(Generate, ADrawnSeedIsNamedAndRepeatsTheAnswer) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest(30);
  request.mutable_sampling()->set_temperature(2.0f);
  const StreamResult first = RunGenerate(server.inference(), request);
  ASSERT_TRUE(first.InOrder());
  const uint64_t seed = first.responses[0].started().provenance().seed();
  EXPECT_NE(seed, 0u);
  request.mutable_sampling()->set_seed(seed);
  EXPECT_EQ(RunGenerate(server.inference(), request).TokenIds(), first.TokenIds());
}

TEST(Generate, AnEmptyModelNameMeansTheOnlyOne) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest();
  request.clear_model();
  EXPECT_TRUE(RunGenerate(server.inference(), request).InOrder());
  InProcessServer two({.models = {"a", "b"}});
  EXPECT_EQ(RunGenerate(two.inference(), request).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(Generate, AnUnknownModelIsNotFound) {
  InProcessServer server;
  for (const std::string& name : {std::string("other"), std::string(1 << 20, 'x')}) {
    v1::GenerateRequest request = GoodRequest();
    request.set_model(name);
    const StreamResult result = RunGenerate(server.inference(), request);
    EXPECT_EQ(result.status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(DetailsOf(result.status).field, "model");
    EXPECT_TRUE(result.responses.empty());
  }
}

TEST(Generate, RefusesEveryBadRequestAndGoesOn) {
  InProcessServer server;
  for (const BadRequestCase& bad : BadRequestCases()) {
    SCOPED_TRACE(bad.name);
    v1::GenerateRequest request = GoodRequest();
    bad.spoil(&request);
    const StreamResult result = RunGenerate(server.inference(), request);
    EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << result.status.error_message();
    EXPECT_TRUE(result.responses.empty());
    const ErrorDetails details = DetailsOf(result.status);
    EXPECT_EQ(details.field, bad.field);
    EXPECT_EQ(details.reason, bad.reason);
    EXPECT_EQ(details.domain, "structattn");
    EXPECT_THAT(details.description, HasSubstr(bad.message_part));
  }
  ExpectGood(&server, GoodRequest());
}

TEST(Generate, SurvivesMessagesThatGrpcItselfRefuses) {
  InProcessServer server;
  v1::GenerateRequest huge = GoodRequest();
  huge.mutable_prompt()->mutable_segments(0)->set_text(std::string(17 << 20, 'x'));
  EXPECT_EQ(RunGenerate(server.inference(), huge).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::GenerateRequest not_utf8 = GoodRequest();
  not_utf8.mutable_prompt()->mutable_segments(0)->set_text("\xff\xfe");
  EXPECT_FALSE(RunGenerate(server.inference(), not_utf8).status.ok());
  ExpectGood(&server, GoodRequest());
}

TEST(Generate, CancelStopsTheWork) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, GoodRequest(4000));
  v1::GenerateResponse response;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.BecomesIdle("m"));
  EXPECT_LT(server.StepsOf("m"), 2000);
  ExpectGood(&server, GoodRequest());
}

TEST(Generate, TheClientsDeadlineStopsTheWork) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(150));
  const auto reader = server.inference().Generate(&context, GoodRequest(4000));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  reader->Finish();
  EXPECT_TRUE(server.BecomesIdle("m"));
  EXPECT_LT(server.StepsOf("m"), 2000);
}

TEST(Generate, TimeoutEndsTheAnswerWithDeadline) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  v1::GenerateRequest request = GoodRequest(4000);
  request.set_timeout_ms(150);
  const StreamResult result = RunGenerate(server.inference(), request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_TRUE(result.InOrder());
  EXPECT_EQ(result.finished().reason(), v1::FINISH_REASON_DEADLINE);
  EXPECT_EQ(result.finished().usage().generated_tokens(),
            static_cast<int>(result.TokenIds().size()));
}

TEST(Generate, ASlowReaderGetsEverythingInFewMessages) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest(4000);
  request.mutable_output()->set_top_logprobs(20);
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_TRUE(server.ReachesSteps("m", 4000));  // The engine never waits for the reader.
  StreamResult result;
  result.responses.push_back(response);
  while (reader->Read(&response)) result.responses.push_back(response);
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_TRUE(result.InOrder());
  EXPECT_EQ(result.TokenIds().size(), 4000u);
  EXPECT_LT(result.responses.size(), 2000u);
}

TEST(Generate, SixtyFourAtATimeAnswerAsEachAlone) {
  InProcessServer server({.kv_blocks = 64});
  std::vector<std::thread> clients;
  for (int i = 0; i < 64; ++i) {
    clients.emplace_back([&server, i] {
      v1::GenerateRequest request = GoodRequest(5 + i % 40);
      request.mutable_prompt()->mutable_segments(0)->set_text(std::string(1 + i * 3, 'a' + i % 26));
      if (i % 2 == 1) {
        request.mutable_sampling()->set_temperature(0.9f);
        request.mutable_sampling()->set_seed(i);
      }
      ExpectGood(&server, request);
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST(Generate, AFullQueueIsExhaustedAndSaysWhenToRetry) {
  InProcessServer server({.engine = {.max_queued_requests = 1, .max_running_sequences = 1},
                          .step_time = absl::Milliseconds(2)});
  std::vector<std::thread> clients;
  std::mutex mutex;
  int answered = 0;
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    clients.emplace_back([&] {
      const StreamResult result = RunGenerate(server.inference(), GoodRequest(50));
      std::lock_guard lock(mutex);
      if (result.status.ok()) {
        EXPECT_TRUE(result.InOrder());
        ++answered;
        return;
      }
      EXPECT_EQ(result.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_EQ(DetailsOf(result.status).reason, "QUEUE_FULL");
      EXPECT_TRUE(DetailsOf(result.status).has_retry);
      EXPECT_TRUE(result.responses.empty());
      ++refused;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(answered, 1);
  EXPECT_GE(refused, 1);
  EXPECT_EQ(answered + refused, 12);
}

TEST(Generate, ADemandBeyondKvMemoryIsExhaustedWithoutRetry) {
  InProcessServer server({.kv_blocks = 4});
  const StreamResult result = RunGenerate(server.inference(), GoodRequest(100));
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(result.status).field, "stopping.max_tokens");
  EXPECT_FALSE(DetailsOf(result.status).has_retry);
  ExpectGood(&server, GoodRequest(10));
}

TEST(Generate, AFailingModelIsInternalAndTheServerGoesOn) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest();
  for (v1::Segment& segment : *request.mutable_prompt()->mutable_segments()) {
    segment.mutable_token_ids()->add_ids(engine::fake::kThrowId);
  }
  const StreamResult result = RunGenerate(server.inference(), request);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INTERNAL);
  ExpectGood(&server, GoodRequest());
}

TEST(Inspect, ShowsTokensGroupsPositionsAndVisibility) {
  InProcessServer server;
  v1::InspectRequest request;
  *request.mutable_prompt() = GoodRequest().prompt();
  grpc::ClientContext context;
  v1::InspectResponse response;
  const grpc::Status status = server.inference().Inspect(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.tokens_size(), 31);
  EXPECT_EQ(response.tokens(8).id(), 'C');
  EXPECT_EQ(response.tokens(8).segment(), 1);
  EXPECT_EQ(response.tokens(8).group(), 1);
  EXPECT_EQ(response.tokens(8).position(), 8);
  EXPECT_EQ(response.tokens(8).bytes(), engine::fake::FakeTokenizer().TokenBytes('C'));
  ASSERT_EQ(response.visible_size(), 3);
  EXPECT_THAT(response.visible(0).groups(), ElementsAre(0, 1, 2));
  EXPECT_THAT(response.visible(1).groups(), ElementsAre(1));
  EXPECT_THAT(response.visible(2).groups(), ElementsAre(1, 2));
  EXPECT_EQ(response.causal_pairs(), 31 * 32 / 2);
  // 8 + 9 + 12 + 2 tokens: instruction, questions 1 and 2, cue.
  EXPECT_EQ(response.visible_pairs(), 36 + 45 + (78 + 12 * 9) + (30 + 31));
}

TEST(Inspect, ShowsATableAsGiven) {
  InProcessServer server;
  v1::InspectRequest request;
  *request.mutable_prompt() = GoodRequest().prompt();
  v1::RuleTable* table = request.mutable_prompt()->mutable_rule()->mutable_table();
  for (int group = 0; group < 4; ++group) table->add_visible()->add_groups(group);
  table->mutable_visible(0)->add_groups(40);
  grpc::ClientContext context;
  v1::InspectResponse response;
  ASSERT_TRUE(server.inference().Inspect(&context, request, &response).ok());
  ASSERT_EQ(response.visible_size(), 4);
  EXPECT_THAT(response.visible(0).groups(), ElementsAre(0, 40));
  EXPECT_THAT(response.visible(3).groups(), ElementsAre(3));
}

TEST(Inspect, RefusesABadPromptWithItsField) {
  InProcessServer server;
  v1::InspectRequest request;
  *request.mutable_prompt() = GoodRequest().prompt();
  request.mutable_prompt()->mutable_segments(1)->set_paraphrase_index(63);
  grpc::ClientContext context;
  v1::InspectResponse response;
  const grpc::Status status = server.inference().Inspect(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).field, "segments[1].paraphrase_index");
}

TEST(Inference, IsUnavailableUntilOpen) {
  InProcessServer server({.open = false});
  EXPECT_EQ(RunGenerate(server.inference(), GoodRequest()).status.error_code(),
            grpc::StatusCode::UNAVAILABLE);
  server.server().Open();
  ExpectGood(&server, GoodRequest());
}

}  // namespace
}  // namespace structattn::rpc
