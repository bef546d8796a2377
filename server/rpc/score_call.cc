// See score_call.h. The engine is never called with mutex_ held.
#include "server/rpc/score_call.h"

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/rpc/log.h"
#include "server/rpc/status.h"

namespace structattn {

void ScoreCall::Start(std::shared_ptr<engine::ServedModel> served, engine::ScoreRequest request,
                      Fill fill) {
  fill_ = std::move(fill);
  {
    std::lock_guard lock(mutex_);
    served_ = served;
  }
  const absl::StatusOr<engine::Engine::Ticket> ticket =
      served->engine->Submit(std::move(request), shared_from_this());
  if (!ticket.ok()) return Refuse(ticket.status());
  std::lock_guard lock(mutex_);
  ticket_ = *ticket;
}

void ScoreCall::Refuse(const absl::Status& status) { OnError(status); }

void ScoreCall::CancelWork() {
  std::shared_ptr<engine::ServedModel> served;
  engine::Engine::Ticket ticket = 0;
  {
    std::lock_guard lock(mutex_);
    served = served_;
    ticket = ticket_;
  }
  if (served != nullptr && ticket != 0) served->engine->Cancel(ticket);
}

void ScoreCall::OnScores(engine::ScoreEvent event) {
  fill_(event);
  LogCall(absl::OkStatus(), &event);
  Finish(grpc::Status::OK);
}

void ScoreCall::OnError(const absl::Status& status) {
  LogCall(status, nullptr);
  Finish(ToGrpcStatus(status));
}

void ScoreCall::OnDone() {
  std::shared_ptr<engine::ServedModel> lease;
  {
    std::lock_guard lock(mutex_);
    lease = std::move(served_);
  }
  lease.reset();
  const DoneHook on_done = on_done_;  // The call may destroy this.
  on_done(this);
}

void ScoreCall::LogCall(const absl::Status& status, const engine::ScoreEvent* event) const {
  LogFields fields = {{"method", labels_.method},
                      {"request_id", labels_.request_id},
                      {"model", labels_.model},
                      {"code", absl::StatusCodeToString(status.code())}};
  if (!status.ok()) fields["error"] = std::string(status.message());
  if (event != nullptr) {
    fields.update({{"prompt_tokens", event->prompt_tokens},
                   {"cached_tokens", event->cached_tokens},
                   {"queue_ms", absl::ToDoubleMilliseconds(event->queue)},
                   {"prefill_ms", absl::ToDoubleMilliseconds(event->prefill)},
                   {"decode_ms", absl::ToDoubleMilliseconds(event->decode)}});
  }
  Log(spdlog::level::info, "request", fields);
}

}  // namespace structattn
