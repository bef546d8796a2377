// What a GenerateBatch stream carries beside plain requests: scores, and answers of several
// continuations, each what the single call says.
#include "server/rpc/v1/batch_call.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/server/rpc/v1/batch_client.h"

namespace structattn::rpc {
namespace {

v1::ScoreRequest Scored(int i) {
  v1::ScoreRequest request;
  *request.mutable_prompt() = GoodRequest().prompt();
  for (int c = 0; c <= i % 4; ++c) {
    request.add_continuations()->set_text(std::string(1 + c + i % 5, static_cast<char>('a' + i)));
  }
  if (i % 3 == 0) request.set_prompt_logprobs_start(2);
  return request;
}

// Times and what the cache had differ from call to call.
std::string Comparable(v1::ScoreResponse response) {
  response.clear_timings();
  response.clear_usage();
  return response.SerializeAsString();
}

TEST(BatchCall, ScoresBesideGenerationsAsTheSingleCallsDo) {
  InProcessServer server;
  BatchClient client(&server);
  for (int i = 0; i < 20; ++i) {
    if (i % 2 == 0) {
      ASSERT_TRUE(client.Send(std::to_string(i), GoodRequest(1 + i)));
    } else {
      ASSERT_TRUE(client.SendScore(std::to_string(i), Scored(i)));
    }
  }
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(answers.size(), 20u);
  for (const auto& [index, answer] : answers) {
    SCOPED_TRACE(index);
    EXPECT_EQ(answer.request_id, std::to_string(index));
    if (index % 2 == 0) {
      ExpectAnswers(answer, GoodRequest(1 + static_cast<int>(index)));
      continue;
    }
    grpc::ClientContext context;
    v1::ScoreResponse alone;
    const v1::ScoreRequest request = Scored(static_cast<int>(index));
    ASSERT_TRUE(server.inference().Score(&context, request, &alone).ok());
    ASSERT_TRUE(answer.scored.has_value()) << answer.error.error_message();
    EXPECT_EQ(answer.scored->scores_size(), request.continuations_size());
    EXPECT_EQ(Comparable(*answer.scored), Comparable(alone));
  }
}

TEST(BatchCall, RefusesScoresWithTheFieldAndKnowsTheirIds) {
  InProcessServer server;
  BatchClient client(&server);
  v1::ScoreRequest empty = Scored(1);
  empty.mutable_continuations(1)->set_text("");
  v1::ScoreRequest unknown_model = Scored(1);
  unknown_model.set_model("other");
  ASSERT_TRUE(client.SendScore("empty", empty));
  ASSERT_TRUE(client.SendScore("model", unknown_model));
  ASSERT_TRUE(client.SendScore("", Scored(1)));
  ASSERT_TRUE(client.Send("twice", GoodRequest(1)));
  ASSERT_TRUE(client.SendScore("twice", Scored(1)));
  ASSERT_TRUE(client.SendScore("good", Scored(1)));
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(answers.size(), 6u);
  using Code = grpc::StatusCode;
  ExpectRefused(answers.at(0), {Code::INVALID_ARGUMENT, "continuations[1]", "EMPTY_CONTINUATION"});
  ExpectRefused(answers.at(1), {Code::NOT_FOUND, "model", "MODEL_NOT_FOUND"});
  ExpectRefused(answers.at(2), {Code::INVALID_ARGUMENT, "request_id", "REQUEST_ID_MISSING"});
  ExpectRefused(answers.at(4), {Code::ALREADY_EXISTS, "request_id", "REQUEST_ID_DUPLICATE"});
  EXPECT_TRUE(answers.at(5).scored.has_value());
}

// In the engine's hands and before.
TEST(BatchCall, StoppedScoresAreErrors) {
  InProcessServer server({.engine = {.max_queued_requests = 1, .max_running_sequences = 1},
                          .step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  ASSERT_TRUE(client.Send("first", GoodRequest(100)));
  for (int i = 0; i < 6; ++i) {
    v1::ScoreRequest request = Scored(i);
    if (i >= 4) request.set_timeout_ms(1);
    ASSERT_TRUE(client.SendScore(std::to_string(i), request));
  }
  for (const char* id : {"0", "3"}) ASSERT_TRUE(client.Cancel(id));
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  ASSERT_EQ(answers.size(), 7u);
  using Code = grpc::StatusCode;
  const std::vector<Code> expected = {
      Code::CANCELLED,        Code::OK, Code::OK, Code::CANCELLED, Code::DEADLINE_EXCEEDED,
      Code::DEADLINE_EXCEEDED};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(answers.at(i + 1).error.error_code(), expected[i]) << i;
    EXPECT_EQ(answers.at(i + 1).scored.has_value(), expected[i] == Code::OK) << i;
  }
}

v1::GenerateRequest Branched() {
  v1::GenerateRequest request = GoodRequest(5);
  for (const int group : {2, 1}) {
    v1::Branch* branch = request.add_branches();
    branch->set_group(group);
    branch->set_branch_cue("so");
  }
  request.set_n(3);
  request.mutable_sampling()->set_seed(7);
  request.mutable_sampling()->set_temperature(1.0f);
  return request;
}

using Continuations = std::map<int32_t, std::vector<int32_t>>;  // Token ids by index.

void Collect(const v1::Chunk& chunk, Continuations* continuations) {
  EXPECT_EQ(chunk.group(), chunk.index() < 3 ? 2 : 1);
  std::vector<int32_t>& ids = (*continuations)[chunk.index()];
  ids.insert(ids.end(), chunk.token_ids().begin(), chunk.token_ids().end());
}

TEST(BatchCall, ContinuationsStayApart) {
  InProcessServer server;
  Continuations expected;
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, Branched());
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_chunk()) Collect(response.chunk(), &expected);
  }
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(expected.size(), 6u);

  BatchClient client(&server);
  ASSERT_TRUE(client.Send("a", Branched()));
  client.HalfClose();
  BatchAnswer answer;
  ASSERT_TRUE(client.Read(&answer));
  EXPECT_EQ(answer.parts, 6);
  Continuations got;
  for (const v1::Chunk& chunk : answer.chunks) {
    Collect(chunk, &got);
    EXPECT_EQ(chunk.finish_reason(), v1::FINISH_REASON_LENGTH);
  }
  EXPECT_EQ(got, expected);
  EXPECT_EQ(answer.finished.continuations_size(), 6);
}

TEST(BatchCall, EveryContinuationOfWhatNeverRanHasItsEnd) {
  InProcessServer server({.engine = {.max_queued_requests = 1, .max_running_sequences = 1},
                          .step_time = absl::Milliseconds(2)});
  BatchClient client(&server);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(client.Send(std::to_string(i), GoodRequest(100)));
  ASSERT_TRUE(client.Send("stopped", Branched()));
  ASSERT_TRUE(client.Cancel("stopped"));
  client.HalfClose();
  const std::map<int64_t, BatchAnswer> answers = client.ReadAll();
  EXPECT_TRUE(client.Finish().ok());
  const BatchAnswer& stopped = answers.at(4);
  ASSERT_EQ(stopped.chunks.size(), 6u);
  ASSERT_EQ(stopped.finished.continuations_size(), 6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(stopped.chunks[i].index(), i);
    EXPECT_EQ(stopped.chunks[i].group(), i < 3 ? 2 : 1);
    EXPECT_EQ(stopped.chunks[i].finish_reason(), v1::FINISH_REASON_CANCELLED);
    EXPECT_EQ(stopped.finished.continuations(i).reason(), v1::FINISH_REASON_CANCELLED);
  }
}

}  // namespace
}  // namespace structattn::rpc
