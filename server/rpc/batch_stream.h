// One GenerateBatch call: the reactor that gRPC drives. Takes requests off the stream while its
// window has room, gives them to the engines in order, and writes their answers.
// Made by InferenceService, which keeps it alive until OnDone; the sinks of its requests share it.
// Never blocks. Memory is bounded by the window: when the client does not read, answers stay in it,
// and when it is full nothing more is read.
#ifndef STRUCTATTN_SERVER_RPC_BATCH_STREAM_H_
#define STRUCTATTN_SERVER_RPC_BATCH_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/served_model.h"
#include "server/rpc/batch_window.h"
#include "server/rpc/batch_work.h"
#include "server/rpc/seen_ids.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn {

class BatchStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public std::enable_shared_from_this<BatchStream> {
 public:
  struct Options {
    // Finds the model and checks the request. UNAVAILABLE ends the stream, not only the request.
    std::function<absl::StatusOr<std::shared_ptr<BatchWork>>(const v1::GenerateBatchRequest&)>
        admit;
    size_t max_requests;
    // Called once, last, on a gRPC thread: the owner drops its reference.
    std::function<void(const BatchStream*)> on_done;
  };

  explicit BatchStream(Options options) : options_(std::move(options)) {}

  // Called once, before the reactor is given to gRPC.
  void Start();

  // Takes nothing more, leaves what no engine has accepted unanswered, and ends the stream with
  // `status` once the rest is answered. The first call counts. Not on an engine's thread.
  void EndWith(const absl::Status& status);
  // Asks the engines to stop; the client still hears how each request ended. Not on an engine's
  // thread.
  void CancelWork();

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
  struct Submission {
    int64_t index;
    std::shared_ptr<BatchWork> work;
  };
  struct Cancel {
    void Run() const { served->engine->Cancel(ticket); }

    std::shared_ptr<engine::ServedModel> served;
    engine::Engine::Ticket ticket;
  };

  // Reading; called in kHandling.
  void HandleMessage();
  void Prepare(BatchEntry& entry);
  // All with mutex_ held:
  bool TakeUnanswered(std::optional<Cancel>* cancel);
  absl::Status CheckMessage();
  void ReadOn();

  // From the window into the engines; called by the one who has set submitting_.
  void SubmitAll();
  void TryAgainLater();
  std::optional<Submission> NextSubmission();
  bool RecordSubmission(int64_t index, const absl::StatusOr<engine::Engine::Ticket>& ticket);
  void OnEnd(int64_t index, BatchOutcome outcome);  // On an engine's thread.

  // All with mutex_ held:
  std::optional<Cancel> CancelEntry(BatchEntry& entry);
  void EndUnsubmitted(BatchEntry& entry, engine::FinishReason reason);
  void AnswerEntry(BatchEntry& entry, BatchOutcome outcome);
  void RefuseEntry(BatchEntry& entry, const absl::Status& error);
  void End(const absl::Status& status);
  void Pump();
  bool MayFinish() const;
  absl::Status Outcome() const;

  void Abandon();

  const Options options_;
  absl::StatusOr<v1::GenerateBatchRequest> message_;
  grpc::ByteBuffer incoming_;           // gRPC's while kReading.
  grpc::ByteBuffer outgoing_;           // gRPC's while writing_.
  std::unique_ptr<grpc::Alarm> alarm_;  // Of the one who has set submitting_.

  std::mutex mutex_;
  // All below: guarded by mutex_.
  Intake intake_ = Intake::kReading;
  int64_t next_index_ = 0;  // Of the message that is being read, handled or held.
  SeenIds seen_ids_;
  BatchWindow window_;
  std::deque<int64_t> waiting_;  // For room in the engine's queue, in order.
  bool submitting_ = false;      // A thread submits, or the alarm will.
  absl::Duration retry_delay_;
  bool writing_ = false;
  std::optional<absl::Status> ending_;  // Takes nothing more.
  bool client_gone_ = false;
  bool finished_ = false;  // Finish was called.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_BATCH_STREAM_H_
