// See batch_stream.h. As in generate_stream, Start* and Finish are called with mutex_ held, the
// engine never is. Finish waits until no other thread works for the stream, so that OnDone, on a
// gRPC thread, is the end of everything, the leases of the models included.
#include "server/rpc/batch_stream.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/field_error.h"
#include "server/rpc/batch_codec.h"
#include "server/rpc/log.h"
#include "server/rpc/request_codec.h"
#include "server/rpc/request_log.h"
#include "server/rpc/response_codec.h"
#include "server/rpc/status.h"

namespace structattn {
namespace {

using State = BatchEntry::State;

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(5);
constexpr absl::Duration kMaxRetryDelay = absl::Milliseconds(80);
constexpr size_t kMaxQuotedBytes = 64;

std::string Quoted(const std::string& id) {
  return absl::StrCat("\"", id.substr(0, kMaxQuotedBytes), "\"");
}

bool IsQueueFull(const absl::Status& status) {
  const std::optional<engine::FieldErrorDetail> detail = engine::GetFieldErrorDetail(status);
  return detail.has_value() && detail->reason == "QUEUE_FULL";
}

void LogEntry(const BatchEntry& entry, bool client_gone) {
  LogRequest({.method = "GenerateBatch",
              .request_id = entry.request_id,
              .model = entry.served != nullptr ? entry.served->name : entry.model,
              .outcome = entry.outcome,
              .finish = entry.finish,
              .client_gone = client_gone});
}

}  // namespace

void BatchStream::Start() {
  std::lock_guard lock(mutex_);
  StartRead(&incoming_);
}

void BatchStream::EndWith(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  End(status);
}

void BatchStream::CancelWork() {
  std::vector<Cancel> cancels;
  {
    std::lock_guard lock(mutex_);
    for (BatchEntry* entry : window_.All()) {
      if (std::optional<Cancel> cancel = CancelEntry(*entry)) cancels.push_back(*std::move(cancel));
    }
  }
  for (const Cancel& cancel : cancels) cancel.Run();
}

void BatchStream::OnEnd(int64_t index, BatchOutcome outcome) {
  std::lock_guard lock(mutex_);
  AnswerEntry(*window_.Find(index), std::move(outcome));
}

void BatchStream::OnReadDone(bool ok) {
  {
    std::lock_guard lock(mutex_);
    intake_ = ok ? Intake::kHandling : Intake::kEnded;
    if (!ok) return Pump();
  }
  message_ = ParseBatchRequest(&incoming_);
  incoming_.Clear();
  HandleMessage();
}

void BatchStream::OnWriteDone(bool ok) {
  std::optional<BatchEntry> closed;
  bool has_room = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) closed = window_.PopWritten();
    client_gone_ |= !ok;
    has_room = intake_ == Intake::kHolding && !window_.full();
    if (has_room) intake_ = Intake::kHandling;
    Pump();
  }
  if (closed.has_value()) LogEntry(*closed, /*client_gone=*/false);
  if (!ok) Abandon();
  if (has_room) HandleMessage();
}

void BatchStream::OnCancel() { Abandon(); }

void BatchStream::OnDone() {
  {
    std::lock_guard lock(mutex_);
    for (const BatchEntry* entry : window_.All()) LogEntry(*entry, client_gone_);
    Log(spdlog::level::info, "batch",
        {{"code", absl::StatusCodeToString(Outcome().code())},
         {"error", std::string(Outcome().message())},
         {"messages", next_index_},
         {"requests", seen_ids_.size()}});
    window_.Clear();
  }
  const auto on_done = options_.on_done;  // The call may destroy this.
  on_done(this);
}

void BatchStream::HandleMessage() {
  std::optional<Cancel> cancel;
  BatchEntry* entry = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (TakeUnanswered(&cancel)) {
      ++next_index_;
      ReadOn();
    } else if (window_.full()) {
      intake_ = Intake::kHolding;
    } else {
      const std::string id = message_.ok() ? RequestIdOf(*message_) : "";
      entry = &window_.Open(next_index_++, id.size() <= kMaxRequestIdBytes ? id : "");
      if (absl::Status error = CheckMessage(); !error.ok()) {
        RefuseEntry(*entry, error);
        entry = nullptr;
        ReadOn();
      }
    }
  }
  if (cancel.has_value()) cancel->Run();
  if (entry != nullptr) Prepare(*entry);
}

// True: the message has had its effect, if any, and gets no answer.
bool BatchStream::TakeUnanswered(std::optional<Cancel>* cancel) {
  if (!message_.ok()) return ending_.has_value();
  if (message_->has_options() && next_index_ == 0) {
    if (absl::StatusOr<BatchSettings> settings = DecodeBatchOptions(message_->options());
        settings.ok()) {
      window_.Configure(*settings);
    } else {
      End(settings.status());
    }
    return true;
  }
  if (message_->has_cancel()) {
    const std::string& id = message_->cancel().request_id();
    BatchEntry* entry = window_.FindById(id);
    if (entry != nullptr) *cancel = CancelEntry(*entry);
    if (entry != nullptr || seen_ids_.Contains(id)) return true;
  }
  const bool is_request = message_->has_generate() || message_->has_score();
  if (is_request && seen_ids_.size() >= options_.max_requests) {
    End(absl::UnavailableError(absl::StrCat("the stream has taken ", options_.max_requests,
                                            " requests: the rest needs a new stream")));
  }
  return ending_.has_value() || client_gone_;
}

// The message gets an answer; what of it is wrong, for what the stream itself knows.
absl::Status BatchStream::CheckMessage() {
  if (!message_.ok()) return message_.status();
  switch (message_->message_case()) {
    case v1::GenerateBatchRequest::kOptions:
      return engine::InvalidField("options", "OPTIONS_NOT_FIRST",
                                  absl::StrCat("given in message ", next_index_ - 1,
                                               ": allowed as the first of the stream only"));
    case v1::GenerateBatchRequest::kCancel:
      return engine::FieldError(absl::StatusCode::kNotFound,
                                {"cancel.request_id", "REQUEST_NOT_FOUND"},
                                absl::StrCat(Quoted(message_->cancel().request_id()),
                                             ": no request of this stream has this id"));
    case v1::GenerateBatchRequest::kGenerate:
    case v1::GenerateBatchRequest::kScore:
      break;
    case v1::GenerateBatchRequest::MESSAGE_NOT_SET:
      return engine::InvalidField("message", "MESSAGE_MISSING",
                                  "one of options, generate, score, cancel must be set");
  }
  const std::string& id = RequestIdOf(*message_);
  if (id.empty()) {
    return engine::InvalidField("request_id", "REQUEST_ID_MISSING",
                                absl::StrCat("empty: 1..", kMaxRequestIdBytes,
                                             " bytes are required in a stream of requests"));
  }
  if (id.size() > kMaxRequestIdBytes || seen_ids_.Insert(id)) return absl::OkStatus();
  return engine::FieldError(
      absl::StatusCode::kAlreadyExists, {"request_id", "REQUEST_ID_DUPLICATE"},
      absl::StrCat(Quoted(id), ": an earlier request of this stream has this id"));
}

void BatchStream::Prepare(BatchEntry& entry) {
  absl::StatusOr<std::shared_ptr<BatchWork>> work = options_.admit(*message_);
  const std::string model = ModelOf(*message_).substr(0, kMaxQuotedBytes);
  message_ = v1::GenerateBatchRequest();
  bool submits = false;
  {
    std::lock_guard lock(mutex_);
    entry.model = model;
    if (absl::IsUnavailable(work.status())) End(work.status());
    if (ending_.has_value() || client_gone_) {
      window_.Drop(entry);
    } else if (!work.ok()) {
      RefuseEntry(entry, work.status());
    } else {
      entry.served = (*work)->served();
      entry.work = *std::move(work);
      entry.state = State::kWaiting;
      waiting_.push_back(entry.index);
      if (entry.cancelled) EndUnsubmitted(entry, engine::FinishReason::kCancelled);
      submits = !std::exchange(submitting_, true);
    }
  }
  if (submits) SubmitAll();
  std::lock_guard lock(mutex_);
  ReadOn();
}

void BatchStream::ReadOn() {
  if (client_gone_) {
    intake_ = Intake::kEnded;
  } else {
    intake_ = Intake::kReading;
    StartRead(&incoming_);
  }
  Pump();
}

void BatchStream::SubmitAll() {
  while (std::optional<Submission> next = NextSubmission()) {
    const absl::StatusOr<engine::Engine::Ticket> ticket =
        next->work->Submit([self = shared_from_this(), index = next->index](BatchOutcome outcome) {
          self->OnEnd(index, std::move(outcome));
        });
    if (!RecordSubmission(next->index, ticket)) return TryAgainLater();
  }
}

// Nothing, and submitting_ reset, when nothing waits.
std::optional<BatchStream::Submission> BatchStream::NextSubmission() {
  std::lock_guard lock(mutex_);
  if (waiting_.empty()) {
    submitting_ = false;
    Pump();
    return std::nullopt;
  }
  BatchEntry& entry = *window_.Find(waiting_.front());
  waiting_.pop_front();
  entry.state = State::kSubmitting;
  return Submission{.index = entry.index, .work = entry.work};
}

// False when the engine's queue is full.
bool BatchStream::RecordSubmission(int64_t index,
                                   const absl::StatusOr<engine::Engine::Ticket>& ticket) {
  std::optional<Cancel> cancel;
  {
    std::lock_guard lock(mutex_);
    BatchEntry* const entry = window_.Find(index);
    // The engine may have answered already.
    if (entry == nullptr || entry->state == State::kAnswered) return true;
    if (IsQueueFull(ticket.status())) {
      entry->state = State::kWaiting;
      waiting_.push_front(index);
      if (entry->cancelled) {
        EndUnsubmitted(*entry, engine::FinishReason::kCancelled);
      } else if (ending_.has_value()) {
        waiting_.pop_front();
        window_.Drop(*entry);
      }
      retry_delay_ = std::clamp(2 * retry_delay_, kMinRetryDelay, kMaxRetryDelay);
      return waiting_.empty();
    }
    retry_delay_ = absl::ZeroDuration();
    if (!ticket.ok()) {
      RefuseEntry(*entry, ticket.status());
      return true;
    }
    entry->state = State::kSubmitted;
    entry->work.reset();
    entry->ticket = *ticket;
    if (entry->cancelled) cancel = CancelEntry(*entry);
  }
  if (cancel.has_value()) cancel->Run();
  return true;
}

void BatchStream::TryAgainLater() {
  absl::Duration delay;
  {
    std::lock_guard lock(mutex_);
    delay = retry_delay_;
  }
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(absl::Now() + delay), [weak = weak_from_this()](bool) {
    const std::shared_ptr<BatchStream> self = weak.lock();
    if (self == nullptr) return;
    {
      std::lock_guard lock(self->mutex_);
      const absl::Time now = absl::Now();
      for (BatchEntry* entry : self->window_.All()) {
        if (entry->state == State::kWaiting && entry->work->deadline() <= now) {
          self->EndUnsubmitted(*entry, engine::FinishReason::kDeadline);
        }
      }
    }
    self->SubmitAll();
  });
}

// What to ask of an engine, if one has the request.
std::optional<BatchStream::Cancel> BatchStream::CancelEntry(BatchEntry& entry) {
  entry.cancelled = true;
  if (entry.state == State::kWaiting) EndUnsubmitted(entry, engine::FinishReason::kCancelled);
  if (entry.state != State::kSubmitted) return std::nullopt;
  return Cancel{.served = entry.served, .ticket = entry.ticket};
}

void BatchStream::EndUnsubmitted(BatchEntry& entry, engine::FinishReason reason) {
  std::erase(waiting_, entry.index);
  AnswerEntry(entry, entry.work->EndUnsubmitted(reason));
}

void BatchStream::RefuseEntry(BatchEntry& entry, const absl::Status& error) {
  AnswerEntry(entry, {.error = error});
}

void BatchStream::AnswerEntry(BatchEntry& entry, BatchOutcome outcome) {
  entry.outcome = outcome.error;
  entry.finish = outcome.finish;
  window_.Answer(entry, EncodeBatchAnswer(entry, std::move(outcome)));
  Pump();
}

void BatchStream::End(const absl::Status& status) {
  if (ending_.has_value()) return;
  ending_ = status;
  for (const int64_t index : std::exchange(waiting_, {})) window_.Drop(*window_.Find(index));
  Pump();
}

void BatchStream::Pump() {
  if (writing_ || finished_) return;
  v1::GenerateBatchResponse* const next = client_gone_ ? nullptr : window_.NextToWrite();
  if (next != nullptr) {
    outgoing_ = SerializeBatchResponse(*next);
    writing_ = true;
    StartWrite(&outgoing_);
  } else if (MayFinish()) {
    finished_ = true;
    Finish(ToGrpcStatus(Outcome()));
  }
}

bool BatchStream::MayFinish() const {
  if (submitting_ || intake_ == Intake::kHandling) return false;
  if (client_gone_) return window_.unanswered() == 0;
  return window_.empty() && (ending_.has_value() || intake_ == Intake::kEnded);
}

absl::Status BatchStream::Outcome() const {
  if (client_gone_) return absl::CancelledError("the client left");
  return ending_.value_or(absl::OkStatus());
}

// Nobody hears any answer: stops everything.
void BatchStream::Abandon() {
  {
    std::lock_guard lock(mutex_);
    client_gone_ = true;
    Pump();
  }
  CancelWork();
}

}  // namespace structattn
