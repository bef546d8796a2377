// SIGTERM and SIGINT, turned into something a program can wait for.
// Used by main only. Does no work in a signal handler: a thread of its own waits for the signals.
#ifndef STRUCTATTN_SERVER_STOP_SIGNAL_H_
#define STRUCTATTN_SERVER_STOP_SIGNAL_H_

#include <condition_variable>
#include <csignal>
#include <mutex>

namespace structattn {

class StopSignal {
 public:
  // Blocks the signals for this thread and all that it starts, and ignores SIGPIPE. Call before the
  // first thread starts. The object lives as long as the process.
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

  std::mutex mutex_;
  std::condition_variable stopped_changed_;
  bool claimed_ = false;  // Guarded by mutex_.
  bool stopped_ = false;  // Guarded by mutex_.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_STOP_SIGNAL_H_
