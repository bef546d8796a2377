// The calls of structattn.v1 with one answer: Score, ScoreRolling and Inspect. Each is the reactor
// that gRPC drives and the sink of its call. It never blocks.
#ifndef STRUCTATTN_SERVER_RPC_V1_UNARY_CALL_H_
#define STRUCTATTN_SERVER_RPC_V1_UNARY_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "server/serving/front_door.h"
#include "server/serving/score_call.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

// What all of them share; it lives until gRPC is done with it.
class UnaryCall : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<UnaryCall> {
 public:
  // Once, before the reactor is given to gRPC. `decoded`: what is wrong with the message itself.
  void Start(serving::FrontDoor* door, std::shared_ptr<serving::Call> call,
             const absl::Status& decoded);

  void OnCancel() override;
  void OnDone() override;

 private:
  std::shared_ptr<UnaryCall> self_;      // Until OnDone.
  std::shared_ptr<serving::Call> call_;  // Set by Start.
  std::atomic<bool> client_gone_ = false;
};

class ScoreReactor final : public UnaryCall, public serving::ScoreAnswerSink {
 public:
  // Writes the answer into gRPC's response.
  using Fill = std::function<void(const serving::ScoreAnswer&)>;

  explicit ScoreReactor(Fill fill) : fill_(std::move(fill)) {}

  void OnAnswer(serving::ScoreAnswer answer) override;
  void OnError(const absl::Status& status) override;

 private:
  const Fill fill_;
};

class InspectReactor final : public UnaryCall, public serving::InspectSink {
 public:
  explicit InspectReactor(v1::InspectResponse* response) : response_(response) {}

  void OnInspected(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer) override;
  void OnError(const absl::Status& status) override;

 private:
  v1::InspectResponse* const response_;  // gRPC's, until Finish.
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_UNARY_CALL_H_
