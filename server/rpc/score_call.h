// One Score or ScoreRolling call: the reactor that gRPC drives and the sink that the engine feeds.
// Made by InferenceService, which keeps it alive until OnDone; the engine shares it. Never blocks.
#ifndef STRUCTATTN_SERVER_RPC_SCORE_CALL_H_
#define STRUCTATTN_SERVER_RPC_SCORE_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/engine/served_model.h"
#include "server/engine/task/score_request.h"
#include "server/rpc/call.h"

namespace structattn {

class ScoreCall final : public grpc::ServerUnaryReactor,
                        public engine::ScoreSink,
                        public Call,
                        public std::enable_shared_from_this<ScoreCall> {
 public:
  ScoreCall(Labels labels, DoneHook on_done)
      : labels_(std::move(labels)), on_done_(std::move(on_done)) {}

  // Makes gRPC's response of the engine's answer.
  using Fill = std::function<void(const engine::ScoreEvent&)>;

  // Exactly one of these is called, once, before the reactor is given to gRPC.
  void Start(std::shared_ptr<engine::ServedModel> served, engine::ScoreRequest request, Fill fill);
  void Refuse(const absl::Status& status);

  void CancelWork() override;

  void OnScores(engine::ScoreEvent event) override;
  void OnError(const absl::Status& status) override;

  void OnCancel() override { CancelWork(); }
  void OnDone() override;

 private:
  void LogCall(const absl::Status& status, const engine::ScoreEvent* event) const;

  const Labels labels_;
  const DoneHook on_done_;
  Fill fill_;         // Set by Start, called once.
  std::mutex mutex_;  // Of everything below.
  std::shared_ptr<engine::ServedModel>
      served_;                         // The lease; given back in OnDone, never by the engine.
  engine::Engine::Ticket ticket_ = 0;  // 0 until submitted.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_SCORE_CALL_H_
