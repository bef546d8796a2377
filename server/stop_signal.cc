// See stop_signal.h.
#include "server/stop_signal.h"

#include <pthread.h>

#include <cstdlib>
#include <thread>

#include "server/options.h"
#include "server/rpc/log.h"

namespace structattn {
namespace {

// Other threads may be in the middle of anything: no destructor may run.
[[noreturn]] void EndAtOnce(int exit_code, const char* why) {
  Log(spdlog::level::warn, "stop", {{"forced", true}, {"reason", why}});
  StopLog();
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
  std::lock_guard lock(mutex_);
  claimed_ = true;
}

void StopSignal::Wait() {
  std::unique_lock lock(mutex_);
  stopped_changed_.wait(lock, [this] { return stopped_; });
}

void StopSignal::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  stopped_changed_.notify_one();
}

void StopSignal::Listen(sigset_t signals) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    std::lock_guard lock(mutex_);
    if (!claimed_) EndAtOnce(kExitDrained, "stopped while loading");
    if (stopped_) EndAtOnce(kExitOther, "second signal");
    stopped_ = true;
    stopped_changed_.notify_one();
  }
}

}  // namespace structattn
