// One Generate call of structattn.v1: the reactor that gRPC drives and the sink of its
// GenerateCall. It never blocks: an event is only queued, and gRPC's threads only write.
// While the client reads slowly, waiting tokens of a continuation are merged into few messages, so
// memory is bounded by the request's own max_tokens.
#ifndef STRUCTATTN_SERVER_RPC_V1_GENERATE_STREAM_H_
#define STRUCTATTN_SERVER_RPC_V1_GENERATE_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/serving/front_door.h"
#include "server/serving/generate_call.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                             public serving::GenerateSink,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // The reactor of a new call; it lives until gRPC is done with it.
  static GenerateStream* Start(serving::FrontDoor* door, serving::Call::Options options,
                               const v1::GenerateRequest& request);

  void OnStarted(serving::Started started) override;
  void OnAccepted() override;
  void OnToken(engine::TokenEvent event) override;
  void OnFinish(const engine::FinishEvent& event) override;
  void OnError(const absl::Status& status) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::Chunk* ChunkFor(int32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::shared_ptr<GenerateStream> self_;  // Until OnDone.
  std::shared_ptr<serving::Call> call_;   // Set by Start.

  absl::Mutex mutex_;
  std::deque<v1::GenerateResponse> waiting_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse in_flight_ ABSL_GUARDED_BY(mutex_);  // gRPC reads it while writing_.
  // Set once nothing more will come.
  std::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mutex_);
  // An engine has the work, or the outcome is known; nothing is written before.
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called.
  bool client_gone_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_GENERATE_STREAM_H_
