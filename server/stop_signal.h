// SIGTERM and SIGINT, turned into something a program can wait for. It does no work in a signal
// handler: a thread of its own waits for the signals.
#ifndef STRUCTATTN_SERVER_STOP_SIGNAL_H_
#define STRUCTATTN_SERVER_STOP_SIGNAL_H_

#include <csignal>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace structattn {

class StopSignal {
 public:
  // Blocks the signals for this thread and all that it starts, and ignores SIGPIPE. It must run
  // before the first thread starts. The object lives as long as the process.
  //
  // A signal before Claim ends the process at once with exit code 0: there is nothing to drain yet.
  // A second signal ends it at once with exit code 1.
  static StopSignal* Install();

  // From now on the first signal is left to Wait.
  void Claim();
  // Returns on the first signal or Stop.
  void Wait();
  // As if the first signal had come.
  void Stop();

 private:
  StopSignal() = default;
  void Listen(sigset_t signals);

  absl::Mutex mutex_;
  bool claimed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_STOP_SIGNAL_H_
