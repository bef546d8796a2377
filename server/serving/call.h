// One unit of work on its way through the server, whichever protocol and method brought it: a
// stream, a score, an entry of a batch. It holds the lease on its model and its ticket at the
// engine, is cancelled in one way, ends exactly once, and is logged in one line.
//
// A protocol makes a GenerateCall, ScoreCall or InspectCall (generate_call.h, score_call.h) with a
// sink, admits it at the FrontDoor, and closes it when its answer is written or the client is gone.
// The sink is told the end exactly once unless the call is withdrawn, on any thread, and never with
// a lock of the call held; after the end it is let go.
#ifndef STRUCTATTN_SERVER_SERVING_CALL_H_
#define STRUCTATTN_SERVER_SERVING_CALL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/served_model.h"
#include "server/serving/call_log.h"
#include "server/serving/limits.h"
#include "server/serving/requests.h"

namespace structattn::serving {

class FrontDoor;

class Call : public std::enable_shared_from_this<Call> {
 public:
  struct Options {
    std::string method;       // As logs name it: "Generate".
    std::string caller = {};  // The caller as logs name it: the peer's address.
    absl::Time deadline = absl::InfiniteFuture();  // The protocol's own; timeout_ms may be earlier.
    // A full queue of the engine is waited for instead of refused. The setter bounds how many
    // such calls there are.
    bool waits_for_room = false;
  };

  virtual ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Stops the work: the sink gets the end within one step of the model, or within milliseconds
  // while a costly text is tokenized. No effect on an ended call.
  void Cancel();
  // Ends a call that no engine has, without a word to the sink; false when an engine has it or it
  // has ended.
  bool Withdraw();
  // Writes the log line. The protocol's last word on a call that was not withdrawn.
  void Close(bool caller_gone);

  absl::Time deadline() const { return deadline_; }

 protected:
  Call(Options options, const RequestHeader& header, int64_t bytes);

  // What Prepare works with.
  struct Context {
    const engine::ServedModel& served;
    const Limits& limits;
    std::stop_token stop;
  };
  // The engine's name for the work; nothing for a call that has answered without an engine.
  using MaybeTicket = std::optional<engine::Engine::Ticket>;

  // Everything that can be checked without a tokenizer; runs once, on the thread that admits.
  virtual absl::Status Check(const Model& model, const Limits& limits) const = 0;
  // Tokenizes; runs once, on a thread of the pool. The call may have ended meanwhile.
  virtual absl::Status Prepare(const Context& context) = 0;
  // Gives the prepared work to the engine; runs again where the queue was full. A call without work
  // for an engine answers here.
  virtual absl::StatusOr<MaybeTicket> Submit(const engine::ServedModel& served) = 0;
  // Record the end and emit it to the sink, once at most: only after the end was claimed.
  virtual void EmitError(const absl::Status& status) = 0;
  virtual void EmitStopped(engine::FinishReason reason) = 0;

  const Options& options() const { return options_; }
  absl::Time arrival() const { return arrival_; }
  // The call's hold on its model; null before it is admitted and after its end.
  std::shared_ptr<engine::ServedModel> lease();
  // True once: that thread alone may give the sink the end, after Record.
  bool ClaimEnd();
  // What the log line says of the end; gives the model back.
  void Record(const absl::Status& outcome, std::optional<CallUsage> usage = {});

 private:
  friend class FrontDoor;

  enum class State {
    kQueued,      // For the pool.
    kPreparing,   // Is being tokenized.
    kWaiting,     // For room in the engine's queue.
    kSubmitting,  // Is being given to the engine.
    kSubmitted,
    kEnded,
  };

  // The FrontDoor's side, in the order of a call's life.
  void Enter(FrontDoor* door);
  void SetLease(std::shared_ptr<engine::ServedModel> lease);
  // The call has been checked and is costly: from here on a cancel ends it while it is queued.
  void SetCostly();
  // True until it is tokenized or has ended.
  bool awaits_tokens();
  // The deadline has passed: stops the tokenizing, or ends a costly call that is queued for it.
  void StopTokenizing();
  // False when it has ended.
  bool BeginPreparing();
  // True when the call was cancelled or its deadline is not after `now`; it has ended then.
  bool StopIfDue(absl::Time now);
  // False when it has ended.
  bool BeginSubmitting();
  void WaitForRoom();
  void SetTicket(engine::Engine::Ticket ticket);
  void Refuse(const absl::Status& status);
  // Refuses the call unless an engine has it.
  void RefuseUnsubmitted(const absl::Status& status);
  bool unsubmitted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return state_ != State::kSubmitting && state_ != State::kSubmitted && state_ != State::kEnded;
  }
  bool ClaimEndLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::string request_id_;
  const std::string model_;  // The name that the caller gave.
  const int64_t bytes_;      // Bytes of text to tokenize.
  const absl::Time arrival_;
  const absl::Time deadline_;
  std::stop_source stop_;  // Stops tokenizing.

  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kQueued;
  bool is_costly_ ABSL_GUARDED_BY(mutex_) = false;  // It ends by a cancel without being tokenized.
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  FrontDoor* door_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::shared_ptr<engine::ServedModel> lease_ ABSL_GUARDED_BY(mutex_);  // Until the end.
  std::string model_name_ ABSL_GUARDED_BY(mutex_);                      // For the log.
  engine::Engine::Ticket ticket_ ABSL_GUARDED_BY(mutex_) = 0;           // 0 until submitted.
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  std::optional<CallUsage> usage_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_CALL_H_
