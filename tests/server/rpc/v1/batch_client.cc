// Implements batch_client.h.
#include "tests/server/rpc/v1/batch_client.h"

#include <gtest/gtest.h>

#include <utility>

namespace structattn::rpc {

BatchClient::BatchClient(InProcessServer* server, const v1::BatchOptions* options,
                         absl::Duration timeout) {
  context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  stream_ = server->inference().GenerateBatch(&context_);
  if (options == nullptr) return;
  v1::GenerateBatchRequest message;
  *message.mutable_options() = *options;
  EXPECT_TRUE(Write(message));
}

bool BatchClient::Send(const std::string& id, v1::GenerateRequest request) {
  v1::GenerateBatchRequest message;
  *message.mutable_generate() = std::move(request);
  message.mutable_generate()->set_request_id(id);
  return Write(message);
}

bool BatchClient::SendScore(const std::string& id, v1::ScoreRequest request) {
  v1::GenerateBatchRequest message;
  *message.mutable_score() = std::move(request);
  message.mutable_score()->set_request_id(id);
  return Write(message);
}

bool BatchClient::Cancel(const std::string& id) {
  v1::GenerateBatchRequest message;
  message.mutable_cancel()->set_request_id(id);
  return Write(message);
}

bool BatchClient::Read(BatchAnswer* answer) {
  *answer = {};
  v1::GenerateBatchResponse response;
  while (stream_->Read(&response)) {
    if (answer->parts++ > 0) {
      EXPECT_EQ(response.message_index(), answer->message_index);
    } else {
      EXPECT_TRUE(response.has_error() || response.has_scored() ||
                  response.generated().has_started());
    }
    answer->message_index = response.message_index();
    answer->request_id = response.request_id();
    if (response.has_error()) {
      EXPECT_EQ(answer->parts, 1);
      answer->error = {static_cast<grpc::StatusCode>(response.error().code()),
                       response.error().message(), response.error().SerializeAsString()};
      return true;
    }
    if (response.has_scored()) {
      EXPECT_EQ(answer->parts, 1);
      answer->scored = response.scored();
      return true;
    }
    const v1::GenerateResult& part = response.generated();
    if (part.has_chunk()) answer->chunks.push_back(part.chunk());
    if (part.has_started()) answer->started = part.started();
    answer->text += part.chunk().text();
    answer->token_ids.insert(answer->token_ids.end(), part.chunk().token_ids().begin(),
                             part.chunk().token_ids().end());
    EXPECT_EQ(part.chunk().token_ids_size(), part.chunk().logprobs_size());
    if (part.has_finished()) {
      answer->finished = part.finished();
      return true;
    }
  }
  EXPECT_EQ(answer->parts, 0) << "half an answer";
  return false;
}

std::map<int64_t, BatchAnswer> BatchClient::ReadAll() {
  std::map<int64_t, BatchAnswer> answers;
  BatchAnswer answer;
  while (Read(&answer)) {
    const int64_t index = answer.message_index;
    EXPECT_TRUE(answers.emplace(index, std::move(answer)).second) << index << " answered twice";
  }
  return answers;
}

void ExpectAnswers(const BatchAnswer& answer, const v1::GenerateRequest& request) {
  ASSERT_TRUE(answer.error.ok()) << answer.error.error_message();
  const engine::fake::Expected expected = ExpectedFor(request);
  EXPECT_EQ(answer.token_ids, expected.token_ids);
  EXPECT_EQ(answer.text, expected.text);
  EXPECT_EQ(answer.finished.usage().generated_tokens(), static_cast<int>(answer.token_ids.size()));
}

void ExpectRefused(const BatchAnswer& answer, const Refusal& refusal) {
  EXPECT_EQ(answer.error.error_code(), refusal.code) << answer.error.error_message();
  const ErrorDetails details = DetailsOf(answer.error);
  EXPECT_EQ(details.field, refusal.field);
  EXPECT_EQ(details.reason, refusal.reason);
  EXPECT_EQ(details.domain, "structattn");
}

}  // namespace structattn::rpc
