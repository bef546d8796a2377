// One Generate call: the reactor that gRPC drives and the sink that the engine feeds.
// Made by InferenceService, which keeps it alive until OnDone; the engine shares it. Never blocks:
// the engine thread only queues, gRPC's threads only write. While the client reads slowly, waiting
// tokens of a continuation are merged into few messages, so memory is bounded by the request's own
// max_tokens.
#ifndef STRUCTATTN_SERVER_RPC_GENERATE_STREAM_H_
#define STRUCTATTN_SERVER_RPC_GENERATE_STREAM_H_

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/engine/served_model.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/rpc/call.h"
#include "structattn/v1/inference_service.grpc.pb.h"

namespace structattn {

class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                             public engine::EventSink,
                             public Call,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  GenerateStream(Labels labels, DoneHook on_done)
      : labels_(std::move(labels)), on_done_(std::move(on_done)) {}

  // Exactly one of these is called, once, before the reactor is given to gRPC.
  void Start(std::shared_ptr<engine::ServedModel> served, engine::GenerateRequest request,
             bool echo);
  void Refuse(const absl::Status& status);

  void CancelWork() override;

  void OnToken(engine::TokenEvent event) override;
  void OnFinish(const engine::FinishEvent& event) override;
  void OnError(const absl::Status& status) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void EndWith(const absl::Status& status);  // mutex_ held.
  void Pump();                               // mutex_ held.
  void LogOutcome();                         // mutex_ held.
  v1::Chunk* ChunkFor(int32_t index);        // mutex_ held.

  const Labels labels_;
  const DoneHook on_done_;
  std::mutex mutex_;  // Of everything below.
  std::shared_ptr<engine::ServedModel>
      served_;                         // The lease; given back in OnDone, never by the engine.
  engine::Engine::Ticket ticket_ = 0;  // 0 until submitted.
  std::deque<v1::GenerateResponse> waiting_;
  v1::GenerateResponse in_flight_;       // gRPC reads it while writing_.
  std::optional<absl::Status> outcome_;  // Set once nothing more will come.
  std::optional<engine::FinishEvent> finish_;
  bool accepted_ = false;  // Submit succeeded or the call was refused; nothing is written before.
  bool writing_ = false;
  bool finished_ = false;  // Finish was called.
  bool client_gone_ = false;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_GENERATE_STREAM_H_
