// The one way into the server: checks and admits calls of every protocol, has them tokenized on
// the pool, and gives them to their model's engine. It knows no protocol and never blocks: a
// thread that admits a call does the checks that need no tokenizer, and queues it.
//
// A call's life: Admit -> pool: Prepare -> engine. While a call waits for room in an engine's
// queue, the FrontDoor asks again, in the order of arrival.
#ifndef STRUCTATTN_SERVER_SERVING_FRONT_DOOR_H_
#define STRUCTATTN_SERVER_SERVING_FRONT_DOOR_H_

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/model_registry.h"
#include "server/serving/call.h"
#include "server/serving/limits.h"
#include "server/serving/tokenize_pool.h"

namespace structattn::serving {

class FrontDoor {
 public:
  // `registry` outlives the door, and the door outlives its calls.
  FrontDoor(const engine::ModelRegistry* registry, const Limits& limits,
            const TokenizePool::Options& pool = {})
      : registry_(registry), limits_(limits), pool_(pool) {}
  FrontDoor(const FrontDoor&) = delete;
  FrontDoor& operator=(const FrontDoor&) = delete;

  const Limits& limits() const { return limits_; }

  // Until Open and after Close, calls are refused with UNAVAILABLE.
  void Open();
  // Refuses new calls from now on, and the calls that no engine has.
  void Close();
  absl::Status CheckOpen() const;

  // Takes a call in. A refusal reaches its sink at once, on this thread; everything else later.
  // `decoded`: what the protocol found wrong with the message; such a call is refused with it.
  void Admit(const std::shared_ptr<Call>& call, const absl::Status& decoded = absl::OkStatus());
  // Stops the work of every call; the sinks still get the end of each.
  void CancelCalls();

 private:
  friend class Call;

  enum class Phase { kLoading, kOpen, kDraining };

  struct Waiting {
    std::shared_ptr<Call> call;
    const engine::ServedModel* model;  // A name, while the call holds its lease.
  };

  void SetPhase(Phase phase);
  std::vector<std::shared_ptr<Call>> LiveCalls();
  void Forget(Call* call);
  // Stops the tokenizing of a costly call at its deadline.
  void WatchDeadline(const std::weak_ptr<Call>& watched);
  void Run(const std::shared_ptr<Call>& call);
  // False when the engine's queue is full and the call waits for room.
  bool Submit(const std::shared_ptr<Call>& call);
  bool MustWait(const Call& call, const engine::ServedModel* model);
  void Wait(std::shared_ptr<Call> call, const engine::ServedModel* model);
  // Submits the waiting calls, in order, to every model that has room, and comes back later.
  void SubmitWaiting();

  const engine::ModelRegistry* const registry_;
  const Limits limits_;

  mutable absl::Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kLoading;
  std::set<Call*> calls_ ABSL_GUARDED_BY(mutex_);        // Admitted and not closed.
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // For room, in order.
  bool retries_ ABSL_GUARDED_BY(mutex_) = false;         // SubmitWaiting runs or is posted.
  absl::Duration retry_delay_ ABSL_GUARDED_BY(mutex_);

  TokenizePool pool_;  // Last: its threads use everything above.
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_FRONT_DOOR_H_
