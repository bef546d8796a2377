// Score, ScoreRolling, and Generate with many continuations over a real connection, with a model
// that costs nothing and is predictable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/prepared.h"

namespace structattn::rpc {
namespace {

using ::testing::ElementsAreArray;

std::unique_ptr<Model> TestModel() {
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  return std::move(fake.model);
}

// What the definition says of the same request, and what the reply says.
void ExpectScored(const v1::ScoreRequest& request, const v1::ScoreResponse& response) {
  engine::ServedModel served;
  served.name = "m";
  served.model = TestModel();
  const auto decoded = PreparedScoreOf(request, served);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const engine::fake::ExpectedScores expected =
      engine::fake::ExpectedScoresOf(decoded->request.prompts[0]);
  ASSERT_EQ(response.scores_size(), request.continuations_size());
  for (int i = 0; i < response.scores_size(); ++i) {
    const v1::ContinuationScore& score = response.scores(i);
    const engine::TokenScores& tokens = expected.continuations[i];
    EXPECT_EQ(score.tokens().token_ids_size(), score.tokens().logprobs_size());
    EXPECT_THAT(score.tokens().logprobs(), ElementsAreArray(tokens.logprobs));
    EXPECT_THAT(score.tokens().ranks(), ElementsAreArray(tokens.ranks));
    double sum = 0.0;
    bool greedy = true;
    for (size_t t = 0; t < tokens.ranks.size(); ++t) {
      sum += tokens.logprobs[t];
      greedy &= tokens.ranks[t] == 1;
    }
    EXPECT_EQ(score.logprob(), sum);
    EXPECT_EQ(score.is_greedy(), greedy);
  }
  EXPECT_THAT(response.prompt_scores().logprobs(),
              ElementsAreArray(expected.prompt_logprobs.logprobs));
}

v1::ScoreRequest GoodScore() {
  v1::ScoreRequest request;
  *request.mutable_prompt() = GoodRequest().prompt();
  for (const char* text : {"yes", "no", "perhaps it is so", "x"}) {
    request.add_continuations()->set_text(text);
  }
  return request;
}

TEST(Score, AnswersWithWhatTheDefinitionSays) {
  InProcessServer server;
  v1::ScoreRequest request = GoodScore();
  request.set_prompt_logprobs_start(4);
  request.mutable_read_outs()->set_group_ends(true);
  request.mutable_read_outs()->set_top_logprobs(2);
  request.mutable_read_outs()->add_candidate_token_ids(3);
  const auto score = [&] {
    grpc::ClientContext context;
    v1::ScoreResponse response;
    const grpc::Status status = server.inference().Score(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    ExpectScored(request, response);
    return response;
  };
  const v1::ScoreResponse cold = score();
  EXPECT_EQ(cold.prompt_logprobs_start(), 4);
  EXPECT_EQ(cold.usage().prompt_tokens(), 31);
  EXPECT_EQ(cold.usage().cached_tokens(), 0);
  ASSERT_EQ(cold.read_outs_size(), 3);
  for (const v1::ReadOut& read_out : cold.read_outs()) {
    EXPECT_EQ(read_out.candidate_logprobs_size(), 1);
    EXPECT_EQ(read_out.top_logprobs().entries_size(), 2);
  }
  request.clear_prompt_logprobs_start();
  request.clear_read_outs();
  const v1::ScoreResponse warm = score();  // Now only the last prompt token's logits are wanted.
  EXPECT_GT(warm.usage().cached_tokens(), 0);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(warm.scores(i).SerializeAsString(), cold.scores(i).SerializeAsString());
  }
}

TEST(Score, RefusesWithTheFieldAndGoesOn) {
  InProcessServer server;
  v1::ScoreRequest request = GoodScore();
  request.mutable_continuations(2)->set_text("");
  grpc::ClientContext context;
  v1::ScoreResponse response;
  const grpc::Status status = server.inference().Score(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).field, "continuations[2]");
  EXPECT_EQ(DetailsOf(status).reason, "EMPTY_CONTINUATION");
  grpc::ClientContext next;
  EXPECT_TRUE(server.inference().Score(&next, GoodScore(), &response).ok());
}

TEST(Score, ADeadlineAndALeavingClientStopTheWork) {
  InProcessServer server({.step_time = absl::Milliseconds(20)});
  v1::ScoreRequest request = GoodScore();
  request.mutable_continuations(0)->set_text(std::string(3000, 'x'));
  request.set_timeout_ms(30);
  grpc::ClientContext context;
  v1::ScoreResponse response;
  const grpc::Status late = server.inference().Score(&context, request, &response);
  EXPECT_EQ(late.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  request.clear_timeout_ms();
  grpc::ClientContext leaving;
  std::thread leaver([&] {
    absl::SleepFor(absl::Milliseconds(50));
    leaving.TryCancel();
  });
  EXPECT_EQ(server.inference().Score(&leaving, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  leaver.join();
  EXPECT_TRUE(server.BecomesIdle("m"));
}

TEST(ScoreRolling, ScoresEveryTokenOnce) {
  InProcessServer server;
  v1::ScoreRollingRequest request;
  request.mutable_text()->set_text(std::string(500, 'q') + "and so on");
  request.set_window_tokens(100);
  grpc::ClientContext context;
  v1::ScoreRollingResponse response;
  const grpc::Status status = server.inference().ScoreRolling(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.windows(), 6);
  EXPECT_EQ(response.tokens().token_ids_size(), 509);
  EXPECT_EQ(response.tokens().logprobs_size(), 509);
  double sum = 0.0;
  for (const float logprob : response.tokens().logprobs()) sum += logprob;
  EXPECT_EQ(response.logprob(), sum);
}

TEST(Generate, StreamsManyContinuationsByIndex) {
  InProcessServer server;
  v1::GenerateRequest request = GoodRequest(12);
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(5);
  request.set_n(3);
  request.add_branches()->set_group(2);
  request.add_branches()->set_group(1);
  request.add_branches()->set_group(9);
  request.mutable_branches(2)->set_branch_cue("say: ");
  const StreamResult result = RunGenerate(server.inference(), request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  std::map<int, engine::fake::Recorded> answers;
  std::map<int, int> ends;
  for (const v1::GenerateResponse& response : result.responses) {
    if (!response.has_chunk()) continue;
    const v1::Chunk& chunk = response.chunk();
    engine::fake::Recorded& answer = answers[chunk.index()];
    answer.group = chunk.group();
    answer.text += chunk.text();
    answer.token_ids.insert(answer.token_ids.end(), chunk.token_ids().begin(),
                            chunk.token_ids().end());
    ends[chunk.index()] += chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
  }
  const auto model = TestModel();
  const auto decoded = Prepared(request, *model);
  ASSERT_EQ(answers.size(), 9u);
  ASSERT_EQ(result.finished().continuations_size(), 9);
  for (const auto& [index, answer] : answers) {
    SCOPED_TRACE(index);
    const engine::fake::Expected expected =
        engine::fake::ExpectedResult(*decoded, kTestContextLength, index / 3, index % 3);
    EXPECT_EQ(answer.token_ids, expected.token_ids);
    EXPECT_EQ(answer.text, expected.text);
    EXPECT_EQ(answer.group, request.branches(index / 3).group());
    EXPECT_EQ(ends[index], 1);
    EXPECT_EQ(result.finished().continuations(index).index(), index);
  }
}

}  // namespace
}  // namespace structattn::rpc
