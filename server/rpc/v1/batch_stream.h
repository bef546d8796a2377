// One GenerateBatch call: the reactor that gRPC drives. It takes requests off the stream while its
// window has room, admits them at the FrontDoor as calls that wait for room, and writes their
// answers. It never blocks. Memory is bounded by the window: when the client does not read, answers
// stay in it, and when it is full nothing more is read.
#ifndef STRUCTATTN_SERVER_RPC_V1_BATCH_STREAM_H_
#define STRUCTATTN_SERVER_RPC_V1_BATCH_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/rpc/v1/batch_call.h"
#include "server/rpc/v1/batch_window.h"
#include "server/rpc/v1/seen_ids.h"
#include "server/serving/front_door.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

class BatchStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public std::enable_shared_from_this<BatchStream> {
 public:
  struct Options {
    serving::FrontDoor* door;     // Outlives the stream.
    serving::Call::Options call;  // What the calls of its requests have in common.
    // Runs once, last, on a gRPC thread: the owner drops its reference.
    std::function<void(const BatchStream*)> on_done;
  };

  explicit BatchStream(Options options) : options_(std::move(options)) {}

  // Once, before the reactor is given to gRPC.
  void Start();

  // Takes nothing more, leaves what no engine has accepted unanswered, and ends the stream with
  // `status` once the rest is answered. The first status counts.
  void EndWith(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Where the one message that is read at a time stands.
  enum class Intake {
    kReading,
    kHandling,  // A thread works on it; message_ is that thread's own.
    kHolding,   // Until the window has room.
    kEnded,
  };

  // Reading; in kHandling.
  void HandleMessage();
  void Admit(int64_t index);
  void OnEnd(int64_t index, BatchOutcome outcome);
  // Stops every entry; no further answer is sent.
  void Abandon();

  std::shared_ptr<serving::Call> TakeUnanswered(bool* is_taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerEntry(BatchEntry& entry, BatchOutcome outcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayFinish() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Outcome() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  absl::StatusOr<v1::GenerateBatchRequest> message_;
  grpc::ByteBuffer incoming_;  // gRPC's while kReading.
  grpc::ByteBuffer outgoing_;  // gRPC's while writing_.

  absl::Mutex mutex_;
  Intake intake_ ABSL_GUARDED_BY(mutex_) = Intake::kReading;
  // The index of the message that is being read, handled or held.
  int64_t next_index_ ABSL_GUARDED_BY(mutex_) = 0;
  SeenIds seen_ids_ ABSL_GUARDED_BY(mutex_);
  BatchWindow window_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mutex_);  // Takes nothing more.
  bool client_gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called.
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_BATCH_STREAM_H_
