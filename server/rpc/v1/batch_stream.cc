// Implements batch_stream.h. As in generate_stream, Start* and Finish are called with mutex_ held.
// Calls and the FrontDoor never are, but for Call::Withdraw and Call::Close, which reach no stream.
#include "server/rpc/v1/batch_stream.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/rpc/v1/batch_codec.h"
#include "server/rpc/v1/field_paths.h"
#include "server/serving/log.h"

namespace structattn::rpc {
namespace {

constexpr size_t kMaxQuotedBytes = 64;

std::string Quoted(const std::string& id) {
  return absl::StrCat("\"", id.substr(0, kMaxQuotedBytes), "\"");
}

// Logs an entry whose answer is written, or will never be. Entries that a stopping server leaves
// unanswered are not logged: the client sends them again.
void CloseEntry(const BatchEntry& entry, const serving::Call::Options& options, bool client_gone) {
  if (entry.call != nullptr) return entry.call->Close(client_gone);
  serving::LogCall({.method = options.method,
                    .caller = options.caller,
                    .request_id = entry.request_id,
                    .model = entry.model,
                    .outcome = entry.outcome});
}

}  // namespace

void BatchStream::Start() {
  absl::MutexLock lock(&mutex_);
  StartRead(&incoming_);
}

void BatchStream::EndWith(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  End(status);
}

void BatchStream::OnReadDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
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
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ok) closed = window_.PopWritten();
    client_gone_ |= !ok;
    has_room = intake_ == Intake::kHolding && !window_.full();
    if (has_room) intake_ = Intake::kHandling;
    Pump();
  }
  if (closed.has_value()) CloseEntry(*closed, options_.call, /*client_gone=*/false);
  if (!ok) Abandon();
  if (has_room) HandleMessage();
}

void BatchStream::OnCancel() { Abandon(); }

void BatchStream::OnDone() {
  {
    absl::MutexLock lock(&mutex_);
    for (const BatchEntry* entry : window_.All()) CloseEntry(*entry, options_.call, client_gone_);
    serving::Log(spdlog::level::info, "batch",
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
  std::shared_ptr<serving::Call> cancelled;
  std::optional<int64_t> admitted;
  {
    absl::MutexLock lock(&mutex_);
    bool is_taken = false;
    cancelled = TakeUnanswered(&is_taken);
    if (is_taken) {
      ++next_index_;
      ReadOn();
    } else if (window_.full()) {
      intake_ = Intake::kHolding;
    } else {
      const std::string id = message_.ok() ? RequestIdOf(*message_) : "";
      BatchEntry& entry =
          window_.Open(next_index_++, id.size() <= serving::Limits::kMaxRequestIdBytes ? id : "");
      if (message_.ok()) entry.model = ModelOf(*message_).substr(0, kMaxQuotedBytes);
      if (absl::Status error = CheckMessage(); error.ok()) {
        admitted = entry.index;
      } else {
        AnswerEntry(entry, {.error = std::move(error)});
        ReadOn();
      }
    }
  }
  if (cancelled != nullptr) cancelled->Cancel();
  if (admitted.has_value()) Admit(*admitted);
}

// Options and cancels have their effect and get no answer; a cancel returns the call to stop.
std::shared_ptr<serving::Call> BatchStream::TakeUnanswered(bool* is_taken) {
  std::shared_ptr<serving::Call> cancelled;
  if (!message_.ok()) {
    *is_taken = ending_.has_value();
    return cancelled;
  }
  if (message_->has_options() && next_index_ == 0) {
    if (absl::StatusOr<BatchSettings> settings = DecodeBatchOptions(message_->options());
        settings.ok()) {
      window_.Configure(*settings);
    } else {
      End(settings.status());
    }
    *is_taken = true;
    return cancelled;
  }
  if (message_->has_cancel()) {
    const std::string& id = message_->cancel().request_id();
    BatchEntry* entry = window_.FindById(id);
    if (entry != nullptr) cancelled = entry->call;
    if (entry != nullptr || seen_ids_.Contains(id)) {
      *is_taken = true;
      return cancelled;
    }
  }
  const bool is_request = message_->has_generate() || message_->has_score();
  const size_t max_requests = options_.door->limits().max_requests_per_stream;
  if (is_request && seen_ids_.size() >= max_requests) {
    End(absl::UnavailableError(absl::StrCat("the stream has taken ", max_requests,
                                            " requests: the rest needs a new stream")));
  }
  *is_taken = ending_.has_value() || client_gone_;
  return cancelled;
}

// What is wrong with a message that gets an answer, by what the stream itself knows.
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
                                absl::StrCat("empty: 1..", serving::Limits::kMaxRequestIdBytes,
                                             " bytes are required in a stream of requests"));
  }
  if (id.size() > serving::Limits::kMaxRequestIdBytes || seen_ids_.Insert(id)) {
    return absl::OkStatus();
  }
  return engine::FieldError(
      absl::StatusCode::kAlreadyExists, {"request_id", "REQUEST_ID_DUPLICATE"},
      absl::StrCat(Quoted(id), ": an earlier request of this stream has this id"));
}

void BatchStream::Admit(int64_t index) {
  serving::Call::Options options = options_.call;
  options.waits_for_room = true;
  BatchCall made = NewBatchCall(*message_, std::move(options), options_.door->limits(),
                                [self = shared_from_this(), index](BatchOutcome outcome) {
                                  self->OnEnd(index, std::move(outcome));
                                });
  message_ = v1::GenerateBatchRequest();
  {
    absl::MutexLock lock(&mutex_);
    window_.Find(index)->call = made.call;
  }
  options_.door->Admit(made.call, made.decoded);
  bool client_gone = false;
  {
    absl::MutexLock lock(&mutex_);
    client_gone = client_gone_;  // Abandon may not have seen the call.
    ReadOn();
  }
  if (client_gone) made.call->Cancel();
}

// A server that stops leaves what no engine has unanswered: the client sends it again elsewhere.
void BatchStream::OnEnd(int64_t index, BatchOutcome outcome) {
  const absl::Status open = options_.door->CheckOpen();
  absl::MutexLock lock(&mutex_);
  BatchEntry& entry = *window_.Find(index);
  if (open.ok() || !absl::IsUnavailable(outcome.error)) {
    return AnswerEntry(entry, std::move(outcome));
  }
  window_.Drop(entry);
  End(open);
  Pump();
}

void BatchStream::ReadOn() {
  if (client_gone_ || finished_) {
    intake_ = Intake::kEnded;
  } else {
    intake_ = Intake::kReading;
    StartRead(&incoming_);
  }
  Pump();
}

void BatchStream::AnswerEntry(BatchEntry& entry, BatchOutcome outcome) {
  entry.outcome = outcome.error;
  window_.Answer(entry, EncodeBatchAnswer(entry, std::move(outcome)));
  Pump();
}

void BatchStream::End(const absl::Status& status) {
  if (ending_.has_value()) return;
  ending_ = status;
  for (BatchEntry* entry : window_.All()) {
    if (entry->call != nullptr && entry->call->Withdraw()) window_.Drop(*entry);
  }
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
    Finish(ToV1Status(Outcome()));
  }
}

bool BatchStream::MayFinish() const {
  if (intake_ == Intake::kHandling) return false;
  if (client_gone_) return window_.unanswered() == 0;
  return window_.empty() && (ending_.has_value() || intake_ == Intake::kEnded);
}

absl::Status BatchStream::Outcome() const {
  if (client_gone_) return absl::CancelledError("the client left");
  return ending_.value_or(absl::OkStatus());
}

void BatchStream::Abandon() {
  std::vector<std::shared_ptr<serving::Call>> calls;
  {
    absl::MutexLock lock(&mutex_);
    client_gone_ = true;
    Pump();
    for (const BatchEntry* entry : window_.All()) {
      if (entry->call != nullptr) calls.push_back(entry->call);
    }
  }
  for (const std::shared_ptr<serving::Call>& call : calls) call->Cancel();
}

}  // namespace structattn::rpc
