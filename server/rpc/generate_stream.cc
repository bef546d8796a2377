// See generate_stream.h. gRPC runs no reaction inside a Start* or Finish call, so these are made
// with mutex_ held; the engine is never called with it held.
#include "server/rpc/generate_stream.h"

#include <utility>

#include "server/rpc/request_log.h"
#include "server/rpc/response_codec.h"
#include "server/rpc/status.h"

namespace structattn {

void GenerateStream::Start(std::shared_ptr<engine::ServedModel> served,
                           engine::GenerateRequest request, bool echo) {
  {
    std::lock_guard lock(mutex_);
    served_ = served;
    *waiting_.emplace_back().mutable_started() = EncodeStarted(*served, request, echo);
  }
  const absl::StatusOr<engine::Engine::Ticket> ticket =
      served->engine->Submit(std::move(request), shared_from_this());
  if (!ticket.ok()) return Refuse(ticket.status());
  std::lock_guard lock(mutex_);
  ticket_ = *ticket;
  accepted_ = true;
  Pump();
}

void GenerateStream::Refuse(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  waiting_.clear();
  accepted_ = true;
  EndWith(status);
}

void GenerateStream::CancelWork() {
  std::shared_ptr<engine::ServedModel> served;
  engine::Engine::Ticket ticket = 0;
  {
    std::lock_guard lock(mutex_);
    served = served_;
    ticket = ticket_;
  }
  if (served != nullptr && ticket != 0) served->engine->Cancel(ticket);
}

void GenerateStream::OnToken(engine::TokenEvent event) {
  std::lock_guard lock(mutex_);
  if (client_gone_) return;
  AppendToken(event, ChunkFor(event.index));
  Pump();
}

// The last chunk that waits of this continuation, while it has room; else a new one.
v1::Chunk* GenerateStream::ChunkFor(int32_t index) {
  for (auto waiting = waiting_.rbegin(); waiting != waiting_.rend(); ++waiting) {
    if (!waiting->has_chunk() || waiting->chunk().index() != index) continue;
    if (waiting->chunk().token_ids_size() >= kMaxTokensPerChunk) break;
    return waiting->mutable_chunk();
  }
  return waiting_.emplace_back().mutable_chunk();
}

void GenerateStream::OnFinish(const engine::FinishEvent& event) {
  std::lock_guard lock(mutex_);
  finish_ = event;
  *waiting_.emplace_back().mutable_finished() = EncodeFinished(event);
  EndWith(absl::OkStatus());
}

void GenerateStream::OnError(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  EndWith(status);
}

void GenerateStream::OnWriteDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    client_gone_ |= !ok;
    Pump();
  }
  if (!ok) CancelWork();
}

void GenerateStream::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    client_gone_ = true;
  }
  CancelWork();
}

void GenerateStream::OnDone() {
  std::shared_ptr<engine::ServedModel> lease;
  {
    std::lock_guard lock(mutex_);
    LogOutcome();
    lease = std::move(served_);
  }
  lease.reset();
  const DoneHook on_done = on_done_;  // The call may destroy this.
  on_done(this);
}

void GenerateStream::EndWith(const absl::Status& status) {
  outcome_ = status;
  Pump();
}

void GenerateStream::Pump() {
  if (!accepted_ || writing_ || finished_) return;
  if (client_gone_) waiting_.clear();
  if (!waiting_.empty()) {
    in_flight_ = std::move(waiting_.front());
    waiting_.pop_front();
    if (waiting_.empty() && outcome_.has_value()) {
      finished_ = true;
      StartWriteAndFinish(&in_flight_, grpc::WriteOptions(), ToGrpcStatus(*outcome_));
    } else {
      writing_ = true;
      StartWrite(&in_flight_);
    }
  } else if (outcome_.has_value()) {
    finished_ = true;
    Finish(ToGrpcStatus(*outcome_));
  }
}

void GenerateStream::LogOutcome() {
  LogRequest({.method = "Generate",
              .request_id = labels_.request_id,
              .model = served_ != nullptr ? served_->name : labels_.model,
              .outcome = *outcome_,
              .finish = finish_,
              .client_gone = client_gone_});
}

}  // namespace structattn
