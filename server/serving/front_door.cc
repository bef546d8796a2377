// Implements front_door.h. No lock is held while a call, an engine or the pool is called.
#include "server/serving/front_door.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "server/engine/field_error.h"

namespace structattn::serving {
namespace {

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(5);
constexpr absl::Duration kMaxRetryDelay = absl::Milliseconds(80);
// An ended call is let go so long after its end at most.
constexpr absl::Duration kWatchInterval = absl::Seconds(1);

bool IsQueueFull(const absl::Status& status) {
  const std::optional<engine::FieldErrorDetail> detail = engine::GetFieldErrorDetail(status);
  return detail.has_value() && detail->reason == "QUEUE_FULL";
}

}  // namespace

void FrontDoor::Open() { SetPhase(Phase::kOpen); }

void FrontDoor::Close() {
  SetPhase(Phase::kDraining);
  for (const std::shared_ptr<Call>& call : LiveCalls()) call->RefuseUnsubmitted(CheckOpen());
}

void FrontDoor::SetPhase(Phase phase) {
  absl::MutexLock lock(&mutex_);
  phase_ = phase;
}

absl::Status FrontDoor::CheckOpen() const {
  absl::MutexLock lock(&mutex_);
  switch (phase_) {
    case Phase::kLoading:
      return absl::UnavailableError("the server is still loading its models");
    case Phase::kOpen:
      return absl::OkStatus();
    case Phase::kDraining:
      return absl::UnavailableError("the server is stopping and takes no new requests");
  }
  return absl::OkStatus();
}

void FrontDoor::Admit(const std::shared_ptr<Call>& call, const absl::Status& decoded) {
  {
    absl::MutexLock lock(&mutex_);
    calls_.insert(call.get());
  }
  call->Enter(this);
  // Close() comes before this check or finds the call among the live ones.
  if (const absl::Status open = CheckOpen(); !open.ok()) return call->Refuse(open);
  absl::StatusOr<std::shared_ptr<engine::ServedModel>> served = registry_->Find(call->model_);
  if (!served.ok()) return call->Refuse(served.status());
  const std::shared_ptr<engine::ServedModel> lease = *std::move(served);
  call->SetLease(lease);
  if (!decoded.ok()) return call->Refuse(decoded);
  const absl::Status checked = call->Check(*lease->model, limits_);
  if (!checked.ok()) return call->Refuse(checked);
  if (!pool_.IsCheap(call->bytes_)) {
    call->SetCostly();
    if (call->deadline() < absl::InfiniteFuture()) WatchDeadline(call);
  }
  const absl::Status posted = pool_.Post(call->bytes_, [this, call] { Run(call); });
  if (!posted.ok()) call->Refuse(posted);
}

void FrontDoor::WatchDeadline(const std::weak_ptr<Call>& watched) {
  const std::shared_ptr<Call> call = watched.lock();
  if (call == nullptr || !call->awaits_tokens()) return;
  const absl::Time now = absl::Now();
  if (now >= call->deadline()) return call->StopTokenizing();
  pool_.PostAt(std::min(call->deadline(), now + kWatchInterval),
               [this, watched] { WatchDeadline(watched); });
}

void FrontDoor::CancelCalls() {
  for (const std::shared_ptr<Call>& call : LiveCalls()) call->Cancel();
}

// A call that is being destroyed has no shared owner left to lock.
std::vector<std::shared_ptr<Call>> FrontDoor::LiveCalls() {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Call>> calls;
  for (Call* call : calls_) {
    if (std::shared_ptr<Call> live = call->weak_from_this().lock()) calls.push_back(live);
  }
  return calls;
}

void FrontDoor::Forget(Call* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

void FrontDoor::Run(const std::shared_ptr<Call>& call) {
  const std::shared_ptr<engine::ServedModel> lease = call->lease();
  if (lease == nullptr) return;  // It has ended meanwhile.
  // A cheap call is prepared in any case, so that the answer of a stopped one says of what it is.
  const bool is_cheap = pool_.IsCheap(call->bytes_);
  if (!is_cheap && call->StopIfDue(absl::Now())) return;
  if (!call->BeginPreparing()) return;
  const std::stop_token stop = is_cheap ? std::stop_token() : call->stop_.get_token();
  const absl::Status prepared = call->Prepare({*lease, limits_, stop});
  if (!prepared.ok() && !stop.stop_requested()) return call->Refuse(prepared);
  if (call->StopIfDue(absl::Now())) return;
  if (MustWait(*call, lease.get())) {
    if (!call->BeginSubmitting()) return;
    call->WaitForRoom();
  } else if (Submit(call)) {
    return;
  }
  Wait(call, lease.get());
}

bool FrontDoor::Submit(const std::shared_ptr<Call>& call) {
  const std::shared_ptr<engine::ServedModel> lease = call->lease();
  if (lease == nullptr || !call->BeginSubmitting()) return true;  // It has ended meanwhile.
  const absl::StatusOr<Call::MaybeTicket> ticket = call->Submit(*lease);
  if (call->options().waits_for_room && IsQueueFull(ticket.status())) {
    call->WaitForRoom();
    return false;
  }
  if (!ticket.ok()) {
    call->Refuse(ticket.status());
  } else if (ticket->has_value()) {
    call->SetTicket(**ticket);
  }
  return true;
}

// A call that may wait takes no room that an earlier one waits for.
bool FrontDoor::MustWait(const Call& call, const engine::ServedModel* model) {
  if (!call.options().waits_for_room) return false;
  absl::MutexLock lock(&mutex_);
  return std::ranges::any_of(waiting_,
                             [&](const Waiting& waiting) { return waiting.model == model; });
}

void FrontDoor::Wait(std::shared_ptr<Call> call, const engine::ServedModel* model) {
  {
    absl::MutexLock lock(&mutex_);
    waiting_.push_back({.call = std::move(call), .model = model});
    if (std::exchange(retries_, true)) return;
    retry_delay_ = kMinRetryDelay;
  }
  pool_.PostAt(absl::Now() + kMinRetryDelay, [this] { SubmitWaiting(); });
}

// Runs on one thread at a time: the next run is posted at the end of this one.
void FrontDoor::SubmitWaiting() {
  std::deque<Waiting> calls;
  {
    absl::MutexLock lock(&mutex_);
    calls.swap(waiting_);
  }
  std::deque<Waiting> left;
  std::set<const engine::ServedModel*> full;  // Models whose queues took no more.
  for (Waiting& waiting : calls) {
    if (waiting.call->lease() == nullptr || waiting.call->StopIfDue(absl::Now())) continue;
    if (full.contains(waiting.model) || !Submit(waiting.call)) {
      full.insert(waiting.model);
      left.push_back(std::move(waiting));
    }
  }
  const bool has_progressed = left.size() < calls.size();
  absl::Time retry;
  {
    absl::MutexLock lock(&mutex_);
    waiting_.insert(waiting_.begin(), left.begin(), left.end());
    retries_ = !waiting_.empty();
    if (!retries_) return;
    retry_delay_ = has_progressed ? kMinRetryDelay : std::min(2 * retry_delay_, kMaxRetryDelay);
    retry = absl::Now() + retry_delay_;
  }
  pool_.PostAt(retry, [this] { SubmitWaiting(); });
}

}  // namespace structattn::serving
