// GenerateBatch over a real connection, with a model that costs nothing and is predictable: order,
// errors, cancels, flow control, and how a stream ends.
#include "server/rpc/v1/batch_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/v1/bad_requests.h"
#include "tests/server/rpc/v1/batch_client.h"

namespace structattn::rpc {
namespace {

using ::testing::HasSubstr;

v1::GenerateRequest Numbered(int i, int max_tokens = 8) {
  v1::GenerateRequest request = GoodRequest(max_tokens);
  request.mutable_prompt()->mutable_segments(0)->set_text(std::string(1 + i % 40, 'a' + i % 26));
  if (i % 2 == 1) {
    request.mutable_sampling()->set_temperature(0.9f);
    request.mutable_sampling()->set_seed(i);
  }
  return request;
}

v1::BatchOptions Options(v1::BatchOrder order, int max_in_flight = 0) {
  v1::BatchOptions options;
  options.set_order(order);
  options.set_max_in_flight(max_in_flight);
  return options;
}

TEST(GenerateBatch, AnswersEveryRequestAsGenerateDoes) {
  InProcessServer server;
  BatchClient client(&server);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(client.Send(std::to_string(i), Numbered(i, 1 + i)));
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(answers.size(), 50u);
  for (const auto& [index, answer] : answers) {
    EXPECT_EQ(answer.request_id, std::to_string(index));
    ExpectAnswers(answer, Numbered(static_cast<int>(index), 1 + static_cast<int>(index)));
    EXPECT_EQ(answer.parts, 1);
    EXPECT_EQ(answer.started.provenance().model(), "m");
    EXPECT_EQ(answer.finished.reason(), v1::FINISH_REASON_LENGTH);
  }
}

TEST(GenerateBatch, LongAnswersComeInPartsAndWithTheirEcho) {
  InProcessServer server;
  BatchClient client(&server);
  v1::GenerateRequest request = GoodRequest(1100);
  request.mutable_output()->set_echo(true);
  ASSERT_TRUE(client.Send("long", request));
  client.HalfClose();
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  EXPECT_EQ(answer.parts, 2);
  EXPECT_EQ(answer.started.prompt_token_ids_size(), 31);
  ExpectAnswers(answer, request);
  EXPECT_FALSE(client.Read(&answer));
  EXPECT_TRUE(client.Finish().ok());
}

// The first request takes longest: as finished it comes last, in input order first.
TEST(GenerateBatch, TheFirstMessageChoosesTheOrder) {
  for (const v1::BatchOrder order : {v1::BATCH_ORDER_AS_FINISHED, v1::BATCH_ORDER_INPUT}) {
    InProcessServer server({.step_time = absl::Milliseconds(1)});
    const v1::BatchOptions options = Options(order);
    BatchClient client(&server, &options);
    ASSERT_TRUE(client.Send("slow", Numbered(0, 200)));
    for (int i = 1; i < 10; ++i) ASSERT_TRUE(client.Send(std::to_string(i), Numbered(i, 2)));
    v1::GenerateRequest bad = GoodRequest();
    bad.mutable_sampling()->set_top_p(7);
    ASSERT_TRUE(client.Send("bad", bad));
    client.HalfClose();
    std::vector<int64_t> indices;
    BatchAnswer answer;
    while (client.Read(&answer)) indices.push_back(answer.message_index);
    EXPECT_TRUE(client.Finish().ok());
    ASSERT_EQ(indices.size(), 11u);
    EXPECT_EQ(std::is_sorted(indices.begin(), indices.end()), order == v1::BATCH_ORDER_INPUT);
    EXPECT_EQ(indices.back() == 1, order == v1::BATCH_ORDER_AS_FINISHED);
  }
}

TEST(GenerateBatch, RefusesEveryBadRequestAloneAndGoesOn) {
  InProcessServer server;
  BatchClient client(&server);
  std::map<int64_t, BadRequestCase> bad_by_index;
  int64_t index = 0;
  for (const BadRequestCase& bad : BadRequestCases()) {
    ASSERT_TRUE(client.Send(std::to_string(index++), Numbered(3)));
    v1::GenerateBatchRequest message;
    *message.mutable_generate() = GoodRequest();
    message.mutable_generate()->set_request_id("bad" + std::to_string(index));
    bad.spoil(message.mutable_generate());
    bad_by_index[index++] = bad;
    ASSERT_TRUE(client.Write(message));
  }
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(static_cast<int64_t>(answers.size()), index);
  for (const auto& [at, answer] : answers) {
    if (!bad_by_index.contains(at)) {
      ExpectAnswers(answer, Numbered(3));
      continue;
    }
    const BadRequestCase& bad = bad_by_index[at];
    SCOPED_TRACE(bad.name);
    ExpectRefused(answer, {grpc::StatusCode::INVALID_ARGUMENT, bad.field, bad.reason});
    EXPECT_THAT(DetailsOf(answer.error).description, HasSubstr(bad.message_part));
  }
}

TEST(GenerateBatch, RefusesWhatTheStreamItselfCannotTake) {
  InProcessServer server;
  const v1::BatchOptions options = Options(v1::BATCH_ORDER_INPUT);
  BatchClient client(&server, &options);
  v1::GenerateBatchRequest second_options;
  *second_options.mutable_options() = options;
  v1::GenerateBatchRequest not_utf8;
  not_utf8.mutable_generate()->set_request_id("\xff\xfe");
  v1::GenerateRequest unknown_model = GoodRequest();
  unknown_model.set_model("other");
  ASSERT_TRUE(client.Send("a", Numbered(1)));                    // 1
  ASSERT_TRUE(client.Send("a", Numbered(2)));                    // 2
  ASSERT_TRUE(client.Send("", Numbered(2)));                     // 3
  ASSERT_TRUE(client.Cancel("nobody"));                          // 4
  ASSERT_TRUE(client.Write(second_options));                     // 5
  ASSERT_TRUE(client.Write(v1::GenerateBatchRequest()));         // 6
  ASSERT_TRUE(client.Write(not_utf8));                           // 7
  ASSERT_TRUE(client.Send("m", unknown_model));                  // 8
  ASSERT_TRUE(client.Send(std::string(257, 'x'), Numbered(2)));  // 9
  ASSERT_TRUE(client.Send("big", [] {                            // 10
    v1::GenerateRequest big = GoodRequest();
    big.mutable_prompt()->mutable_segments(0)->set_text(std::string(2 << 20, 'x'));
    return big;
  }()));
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  ExpectAnswers(answer, Numbered(1));
  ASSERT_TRUE(client.Send("a", Numbered(3)));  // 11: answered, yet known.
  ASSERT_TRUE(client.Send("z", Numbered(5)));  // 12
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  using Code = grpc::StatusCode;
  const std::map<int64_t, Refusal> refusals = {
      {2, {Code::ALREADY_EXISTS, "request_id", "REQUEST_ID_DUPLICATE"}},
      {3, {Code::INVALID_ARGUMENT, "request_id", "REQUEST_ID_MISSING"}},
      {4, {Code::NOT_FOUND, "cancel.request_id", "REQUEST_NOT_FOUND"}},
      {5, {Code::INVALID_ARGUMENT, "options", "OPTIONS_NOT_FIRST"}},
      {6, {Code::INVALID_ARGUMENT, "message", "MESSAGE_MISSING"}},
      {7, {Code::INVALID_ARGUMENT, "", "MALFORMED_MESSAGE"}},
      {8, {Code::NOT_FOUND, "model", "MODEL_NOT_FOUND"}},
      {9, {Code::INVALID_ARGUMENT, "request_id", "REQUEST_ID_TOO_LONG"}},
      {10, {Code::INVALID_ARGUMENT, "segments", "PROMPT_TOO_LARGE"}},
      {11, {Code::ALREADY_EXISTS, "request_id", "REQUEST_ID_DUPLICATE"}}};
  ASSERT_EQ(answers.size(), refusals.size() + 1);
  for (const auto& [index, refusal] : refusals) {
    SCOPED_TRACE(index);
    ExpectRefused(answers.at(index), refusal);
  }
  EXPECT_EQ(answers.at(2).request_id, "a");
  EXPECT_EQ(answers.at(9).request_id, "");
  ExpectAnswers(answers.at(12), Numbered(5));
}

TEST(GenerateBatch, WrongOptionsEndTheStream) {
  InProcessServer server;
  for (const bool wrong_order : {false, true}) {
    v1::BatchOptions options;
    if (wrong_order) {
      options.set_order(static_cast<v1::BatchOrder>(9));
    } else {
      options.set_max_in_flight(1025);
    }
    BatchClient client(&server, &options);
    client.Send("a", Numbered(1));
    EXPECT_TRUE(client.ReadAll().empty());
    const grpc::Status status = client.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(DetailsOf(status).field, wrong_order ? "options.order" : "options.max_in_flight");
  }
}

TEST(GenerateBatch, ACancelEndsOneRequestOnly) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  ASSERT_TRUE(client.Send("stopped", Numbered(0, 4000)));
  ASSERT_TRUE(client.Send("other", Numbered(1, 100)));
  ASSERT_TRUE(server.ReachesSteps("m", 10));
  ASSERT_TRUE(client.Cancel("stopped"));
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  EXPECT_EQ(answer.request_id, "stopped");
  EXPECT_EQ(answer.finished.reason(), v1::FINISH_REASON_CANCELLED);
  EXPECT_GT(answer.token_ids.size(), 0u);
  EXPECT_LT(answer.token_ids.size(), 4000u);
  ASSERT_TRUE(client.Cancel("stopped"));  // Answered: no effect, no answer.
  client.HalfClose();
  ASSERT_TRUE(client.Read(&answer));
  ExpectAnswers(answer, Numbered(1, 100));
  EXPECT_FALSE(client.Read(&answer));
  EXPECT_TRUE(client.Finish().ok());
}

TEST(GenerateBatch, AFullQueueIsWaitedForAndWhatWaitsMayBeCancelledOrExpire) {
  InProcessServer server({.engine = {.max_queued_requests = 1, .max_running_sequences = 1},
                          .step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request = Numbered(i, 40);
    if (i == 10) request.set_timeout_ms(1);
    ASSERT_TRUE(client.Send(std::to_string(i), request));
  }
  ASSERT_TRUE(client.Cancel("11"));
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(answers.size(), 12u);
  for (int i = 0; i < 10; ++i) ExpectAnswers(answers.at(i), Numbered(i, 40));
  for (int i = 10; i < 12; ++i) {
    const v1::Finished& finished = answers.at(i).finished;
    EXPECT_EQ(finished.reason(),
              i == 10 ? v1::FINISH_REASON_DEADLINE : v1::FINISH_REASON_CANCELLED);
    EXPECT_EQ(finished.usage().generated_tokens(), 0);
    EXPECT_GT(finished.usage().prompt_tokens(), 0);
    EXPECT_EQ(finished.usage().cached_tokens_per_segment_size(), 4);
    EXPECT_FALSE(answers.at(i).started.provenance().model().empty());
  }
}

TEST(GenerateBatch, AFailingModelFailsItsRequestsOnly) {
  InProcessServer server;
  BatchClient client(&server);
  v1::GenerateRequest request = GoodRequest();
  for (v1::Segment& segment : *request.mutable_prompt()->mutable_segments()) {
    segment.mutable_token_ids()->add_ids(engine::fake::kThrowId);
  }
  ASSERT_TRUE(client.Send("broken", request));
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  EXPECT_EQ(answer.error.error_code(), grpc::StatusCode::INTERNAL);
  ASSERT_TRUE(client.Send("good", Numbered(1)));
  ASSERT_TRUE(client.Read(&answer));
  ExpectAnswers(answer, Numbered(1));
}

TEST(GenerateBatch, AClientThatDoesNotReadIsNotReadFrom) {
  InProcessServer server;
  const v1::BatchOptions options = Options(v1::BATCH_ORDER_AS_FINISHED, 4);
  BatchClient client(&server, &options);
  constexpr int kRequests = 300;
  // An echoed prompt of 3,000 tokens: the connection holds few answers.
  v1::GenerateRequest request = GoodRequest(1);
  request.mutable_prompt()->mutable_segments(0)->set_text(std::string(3000, 'x'));
  request.mutable_output()->set_echo(true);
  std::jthread writer([&] {
    for (int i = 0; i < kRequests; ++i) ASSERT_TRUE(client.Send(std::to_string(i), request));
    client.HalfClose();
  });
  ASSERT_TRUE(server.ReachesSteps("m", 4));
  ASSERT_TRUE(server.BecomesIdle("m"));
  EXPECT_LT(server.StepsOf("m"), 60);
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_EQ(answers.size(), static_cast<size_t>(kRequests));
}

TEST(GenerateBatch, LeavingStopsTheWork) {
  InProcessServer server(
      {.engine = {.max_running_sequences = 4}, .step_time = absl::Milliseconds(2)});
  for (const bool by_deadline : {false, true}) {
    const int64_t before = server.StepsOf("m");
    BatchClient client(&server, nullptr,
                       by_deadline ? absl::Milliseconds(150) : absl::InfiniteDuration());
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(client.Send(std::to_string(i), Numbered(i, 4000)));
    ASSERT_TRUE(server.ReachesSteps("m", before + 5));
    if (!by_deadline) client.context().TryCancel();
    client.ReadAll();
    EXPECT_EQ(client.Finish().error_code(),
              by_deadline ? grpc::StatusCode::DEADLINE_EXCEEDED : grpc::StatusCode::CANCELLED);
    EXPECT_TRUE(server.BecomesIdle("m"));
    EXPECT_LT(server.StepsOf("m") - before, 2000);
  }
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest()).InOrder());
}

TEST(GenerateBatch, ADrainAnswersWhatHasBegunAndEndsTheStream) {
  InProcessServer server({.engine = {.max_queued_requests = 1, .max_running_sequences = 1},
                          .step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(client.Send(std::to_string(i), Numbered(i, 100)));
  ASSERT_TRUE(server.ReachesSteps("m", 10));
  bool all_done = false;
  const absl::Time begin = absl::Now();
  std::jthread drain([&] { all_done = server.server().Drain(absl::Now() + absl::Seconds(60)); });
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();  // No half-close.
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  drain.join();
  EXPECT_TRUE(all_done);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(30));
  EXPECT_GE(answers.size(), 1u);
  EXPECT_LT(answers.size(), 8u);
  for (const auto& [index, answer] : answers) {
    ExpectAnswers(answer, Numbered(static_cast<int>(index), 100));
  }
}

TEST(GenerateBatch, ADrainPastItsDeadlineCancels) {
  InProcessServer server({.step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client.Send(std::to_string(i), Numbered(i, 4000)));
  ASSERT_TRUE(server.ReachesSteps("m", 10));
  std::jthread drain(
      [&] { EXPECT_FALSE(server.server().Drain(absl::Now() + absl::Milliseconds(200))); });
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answers.size(), 3u);
  for (const auto& [index, answer] : answers) {
    EXPECT_EQ(answer.finished.reason(), v1::FINISH_REASON_CANCELLED);
  }
}

TEST(GenerateBatch, AnIdleStreamEndsWithTheDrainAndAClosedServerTakesNone) {
  InProcessServer server({.open = false});
  BatchClient early(&server);
  EXPECT_TRUE(early.ReadAll().empty());
  EXPECT_EQ(early.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  server.server().Open();
  BatchClient idle(&server);
  ASSERT_TRUE(idle.Send("a", Numbered(1)));
  BatchAnswer answer;
  ASSERT_TRUE(idle.Read(&answer));
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(server.server().Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_FALSE(idle.Read(&answer));
  EXPECT_EQ(idle.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(30));
}

TEST(GenerateBatch, AStreamTakesABoundedNumberOfRequests) {
  TestServerOptions options;
  options.rpc.limits.max_requests_per_stream = 5;
  InProcessServer server(options);
  BatchClient client(&server);
  for (int i = 0; i < 8; ++i) client.Send(std::to_string(i), Numbered(i));
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_LE(answers.size(), 5u);
}

TEST(GenerateBatch, AMessageThatGrpcRefusesEndsTheStream) {
  InProcessServer server;
  BatchClient client(&server);
  v1::GenerateRequest huge = GoodRequest();
  huge.mutable_prompt()->mutable_segments(0)->set_text(std::string(17 << 20, 'x'));
  client.Send("huge", huge);
  EXPECT_TRUE(client.ReadAll().empty());
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest()).InOrder());
}

// A stream that stays open must not keep a model from being unloaded.
TEST(GenerateBatch, AnIdleStreamHoldsNoModel) {
  InProcessServer server({.models = {"m", "n"}});
  BatchClient client(&server);
  ASSERT_TRUE(client.Send("a", Numbered(1)));
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  EXPECT_TRUE(server.registry().Unload("m").ok());
  ASSERT_TRUE(client.Send("b", Numbered(1)));
  ASSERT_TRUE(client.Read(&answer));
  ExpectRefused(answer, {grpc::StatusCode::NOT_FOUND, "model", "MODEL_NOT_FOUND"});
  client.HalfClose();
  EXPECT_FALSE(client.Read(&answer));
  EXPECT_TRUE(client.Finish().ok());
}

}  // namespace
}  // namespace structattn::rpc
