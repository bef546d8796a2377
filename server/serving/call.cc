// Implements call.h. No lock is held while the engine, the sink or the FrontDoor is called.
#include "server/serving/call.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/serving/front_door.h"

namespace structattn::serving {
namespace {

// Callers may send any string as a name; the log takes its beginning.
constexpr size_t kMaxLoggedBytes = 256;

absl::Time Deadline(absl::Time arrival, int64_t timeout_ms, absl::Time protocol_deadline) {
  if (timeout_ms <= 0) return protocol_deadline;
  return std::min(arrival + absl::Milliseconds(timeout_ms), protocol_deadline);
}

}  // namespace

Call::Call(Options options, const RequestHeader& header, int64_t bytes)
    : options_(std::move(options)),
      request_id_(header.request_id.substr(0, kMaxLoggedBytes)),
      model_(header.model),
      bytes_(bytes),
      arrival_(absl::Now()),
      deadline_(Deadline(arrival_, header.timeout_ms, options_.deadline)) {}

Call::~Call() {
  if (door_ != nullptr) door_->Forget(this);
}

void Call::Cancel() {
  std::shared_ptr<engine::ServedModel> served;
  engine::Engine::Ticket ticket = 0;
  bool stops_waiting = false;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    stop_.request_stop();
    if (state_ == State::kSubmitted) {
      served = lease_;
      ticket = ticket_;
    }
    const bool may_stop = state_ == State::kWaiting || (state_ == State::kQueued && is_costly_);
    stops_waiting = may_stop && ClaimEndLocked();
  }
  if (served != nullptr) served->engine->Cancel(ticket);
  if (stops_waiting) EmitStopped(engine::FinishReason::kCancelled);
}

bool Call::Withdraw() {
  std::shared_ptr<engine::ServedModel> lease;  // Outlives the lock.
  absl::MutexLock lock(&mutex_);
  stop_.request_stop();
  if (!unsubmitted() || !ClaimEndLocked()) return false;
  lease = std::move(lease_);
  return true;
}

void Call::Close(bool caller_gone) {
  CallRecord record = {.method = options_.method,
                       .caller = options_.caller,
                       .request_id = request_id_,
                       .model = {},
                       .outcome = {}};
  FrontDoor* door = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    door = std::exchange(door_, nullptr);
    record.model = model_name_;
    record.outcome = caller_gone ? absl::CancelledError("the client left") : outcome_;
    record.usage = usage_;
  }
  LogCall(record);
  if (door != nullptr) door->Forget(this);
}

bool Call::ClaimEnd() {
  absl::MutexLock lock(&mutex_);
  return ClaimEndLocked();
}

bool Call::ClaimEndLocked() { return std::exchange(state_, State::kEnded) != State::kEnded; }

void Call::Record(const absl::Status& outcome, std::optional<CallUsage> usage) {
  std::shared_ptr<engine::ServedModel> lease;  // Outlives the lock.
  absl::MutexLock lock(&mutex_);
  outcome_ = outcome;
  usage_ = usage;
  lease = std::move(lease_);
}

void Call::Enter(FrontDoor* door) {
  absl::MutexLock lock(&mutex_);
  door_ = door;
  model_name_ = model_.substr(0, kMaxLoggedBytes);
}

void Call::SetCostly() {
  absl::MutexLock lock(&mutex_);
  is_costly_ = true;
}

void Call::SetLease(std::shared_ptr<engine::ServedModel> lease) {
  absl::MutexLock lock(&mutex_);
  model_name_ = lease->name;
  lease_ = std::move(lease);
}

std::shared_ptr<engine::ServedModel> Call::lease() {
  absl::MutexLock lock(&mutex_);
  return lease_;
}

bool Call::awaits_tokens() {
  absl::MutexLock lock(&mutex_);
  return state_ == State::kQueued || state_ == State::kPreparing;
}

void Call::StopTokenizing() {
  bool stops = false;
  {
    absl::MutexLock lock(&mutex_);
    stop_.request_stop();
    stops = state_ == State::kQueued && is_costly_ && ClaimEndLocked();
  }
  if (stops) EmitStopped(engine::FinishReason::kDeadline);
}

bool Call::BeginPreparing() {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kQueued) return false;
  state_ = State::kPreparing;
  return true;
}

bool Call::StopIfDue(absl::Time now) {
  engine::FinishReason reason = engine::FinishReason::kDeadline;
  bool stops = false;
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_ && now < deadline_) return false;
    if (cancelled_) reason = engine::FinishReason::kCancelled;
    stops = ClaimEndLocked();
  }
  if (stops) EmitStopped(reason);
  return true;
}

bool Call::BeginSubmitting() {
  absl::MutexLock lock(&mutex_);
  if (!unsubmitted()) return false;
  state_ = State::kSubmitting;
  return true;
}

// A cancel that came while it was submitted ends it here.
void Call::WaitForRoom() {
  bool stops = false;
  {
    absl::MutexLock lock(&mutex_);
    if (state_ != State::kSubmitting) return;
    state_ = State::kWaiting;
    stops = cancelled_ && ClaimEndLocked();
  }
  if (stops) EmitStopped(engine::FinishReason::kCancelled);
}

void Call::SetTicket(engine::Engine::Ticket ticket) {
  std::shared_ptr<engine::ServedModel> served;
  {
    absl::MutexLock lock(&mutex_);
    if (state_ != State::kSubmitting) return;  // The engine has answered already.
    state_ = State::kSubmitted;
    ticket_ = ticket;
    if (cancelled_) served = lease_;
  }
  if (served != nullptr) served->engine->Cancel(ticket);
}

void Call::Refuse(const absl::Status& status) {
  if (ClaimEnd()) EmitError(status);
}

void Call::RefuseUnsubmitted(const absl::Status& status) {
  bool refuses = false;
  {
    absl::MutexLock lock(&mutex_);
    refuses = unsubmitted() && ClaimEndLocked();
    if (refuses) stop_.request_stop();
  }
  if (refuses) EmitError(status);
}

}  // namespace structattn::serving
