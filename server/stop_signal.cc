// See stop_signal.h.
#include "server/stop_signal.h"

#include <pthread.h>

#include <cstdlib>
#include <thread>

#include "server/options.h"
#include "server/serving/log.h"

namespace structattn {
namespace {

// No destructor may run, since other threads may be in the middle of anything.
[[noreturn]] void EndAtOnce(int exit_code, const char* why) {
  serving::Log(spdlog::level::warn, "stop", {{"forced", true}, {"reason", why}});
  serving::StopLog();
  std::_Exit(exit_code);
}

}  // namespace

StopSignal* StopSignal::Install() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  static StopSignal* const instance = new StopSignal;
  std::thread([signals] { instance->Listen(signals); }).detach();
  return instance;
}

void StopSignal::Claim() {
  const absl::MutexLock lock(&mutex_);
  claimed_ = true;
}

void StopSignal::Wait() { const absl::MutexLock lock(&mutex_, absl::Condition(&stopped_)); }

void StopSignal::Stop() {
  const absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

void StopSignal::Listen(sigset_t signals) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    const absl::MutexLock lock(&mutex_);
    if (!claimed_) EndAtOnce(kExitDrained, "stopped while loading");
    if (stopped_) EndAtOnce(kExitOther, "second signal");
    stopped_ = true;
  }
}

}  // namespace structattn
