// The C++ client library of structattn.v1: a thin face over the generated stubs.
// It is thread-safe, holds one channel, and checks nothing that the server checks.
#ifndef STRUCTATTN_CLIENT_CLIENT_H_
#define STRUCTATTN_CLIENT_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "structattn/v1/inference_service.grpc.pb.h"
#include "structattn/v1/model_service.grpc.pb.h"

namespace structattn::client {

// What the google.rpc details of a refused call say; what they do not say is empty.
struct ErrorDetail {
  std::string field;   // "segments[3].paraphrase_index"
  std::string reason;  // "PARAPHRASE_INDEX_OUT_OF_RANGE"
  std::optional<std::chrono::milliseconds> retry_delay;
};
ErrorDetail GetErrorDetail(const grpc::Status& status);

// "INVALID_ARGUMENT" and so on.
std::string CodeName(grpc::StatusCode code);

// One continuation, put together from the stream.
struct Continued {
  int32_t group = 0;
  v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;                      // One per token id.
  std::vector<v1::TopLogprobs> top_logprobs;        // One per token id when asked for.
  std::vector<v1::MemberLogprobs> member_logprobs;  // One per token id with fusion.
};

// A whole answer to one request.
struct Generation {
  v1::Started started;
  v1::Finished finished;
  std::vector<Continued> continuations = std::vector<Continued>(1);  // By index; at least one.

  void Append(const v1::Chunk& chunk);
};

// The answer to one request of a stream: what was generated or the scores, as was asked.
struct BatchAnswer {
  Generation generation;
  v1::ScoreResponse scores;
};

// The source of a stream's requests and the sink of their answers.
struct BatchHandler {
  // Gives the next message, generate or score, with a request_id of its own; nothing at the end. It
  // runs on a thread of its own, ahead of the answers by as much as the connection holds.
  std::function<std::optional<v1::GenerateBatchRequest>()> next;
  // Takes the answer to the n-th request, counted from 0, once at most. It runs on the caller's
  // thread.
  std::function<void(size_t n, const grpc::Status& status, const BatchAnswer& answer)> on_answer;
};

class Client {
 public:
  // `address` is HOST:PORT. It connects lazily; the first call fails with UNAVAILABLE when nothing
  // answers.
  explicit Client(const std::string& address);

  // A request with more bytes would end a stream: the server takes messages of 16 MiB.
  static constexpr size_t kMaxRequestBytes = (size_t{16} << 20) - 64;

  // Gets each chunk as it arrives; may be empty.
  using OnChunk = std::function<void(const v1::Chunk&)>;

  // Runs a request to its end. `context` may be cancelled from another thread (TryCancel).
  grpc::Status Generate(grpc::ClientContext& context, const v1::GenerateRequest& request,
                        const OnChunk& on_chunk, Generation* generation) const;
  // Runs requests over one stream until all are answered, or the stream breaks: then those without
  // an answer may be asked again in another one. `context` as above.
  grpc::Status GenerateBatch(grpc::ClientContext& context, const v1::BatchOptions& options,
                             const BatchHandler& handler) const;
  grpc::Status Score(grpc::ClientContext& context, const v1::ScoreRequest& request,
                     v1::ScoreResponse* response) const;
  grpc::Status Inspect(grpc::ClientContext& context, const v1::InspectRequest& request,
                       v1::InspectResponse* response) const;
  grpc::Status ListModels(grpc::ClientContext& context, v1::ListModelsResponse* response) const;

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ModelService::Stub> models_;
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLIENT_H_
