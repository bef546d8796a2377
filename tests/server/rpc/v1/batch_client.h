// The client's side of a GenerateBatch stream, and what its answers must be. For the tests of
// batch_stream; writes from the test's thread, reads when asked to.
#ifndef STRUCTATTN_TESTS_SERVER_RPC_V1_BATCH_CLIENT_H_
#define STRUCTATTN_TESTS_SERVER_RPC_V1_BATCH_CLIENT_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {

// One message's answer, put together from its parts.
struct BatchAnswer {
  int64_t message_index = 0;
  std::string request_id;
  grpc::Status error;  // With its details; OK for an answer.
  std::vector<int32_t> token_ids;
  std::string text;
  std::vector<v1::Chunk> chunks;  // What token_ids and text are made of.
  v1::Started started;
  v1::Finished finished;
  std::optional<v1::ScoreResponse> scored;  // Instead of all this.
  int parts = 0;
};

class BatchClient {
 public:
  // The first message is `options`, if any; `timeout` is the whole stream's.
  explicit BatchClient(InProcessServer* server, const v1::BatchOptions* options = nullptr,
                       absl::Duration timeout = absl::InfiniteDuration());

  bool Send(const std::string& id, v1::GenerateRequest request);
  bool SendScore(const std::string& id, v1::ScoreRequest request);
  bool Cancel(const std::string& id);
  bool Write(const v1::GenerateBatchRequest& message) { return stream_->Write(message); }
  void HalfClose() { stream_->WritesDone(); }
  // False at the end of the stream. Fails the test when parts of answers are mixed.
  bool Read(BatchAnswer* answer);
  // Everything up to the end, by message.
  std::map<int64_t, BatchAnswer> ReadAll();
  grpc::Status Finish() { return stream_->Finish(); }
  grpc::ClientContext& context() { return context_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::GenerateBatchRequest, v1::GenerateBatchResponse>>
      stream_;
};

// Answered in full, as the fake model must.
void ExpectAnswers(const BatchAnswer& answer, const v1::GenerateRequest& request);

// Refused, with this code and these details.
struct Refusal {
  grpc::StatusCode code;
  std::string field;
  std::string reason;
};
void ExpectRefused(const BatchAnswer& answer, const Refusal& refusal);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_TESTS_SERVER_RPC_V1_BATCH_CLIENT_H_
