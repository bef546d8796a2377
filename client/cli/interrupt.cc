// See interrupt.h.
#include "client/cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "client/cli/exit_code.h"

namespace structattn::client {

Interrupt::Interrupt() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // The thread lives as long as the process, so nothing joins it.
  std::thread([this, signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    Raise();
    sigwait(&signals, &signal);
    _exit(static_cast<int>(ExitCode::kInterrupted));
  }).detach();
}

void Interrupt::Raise() {
  const absl::MutexLock lock(&mutex_);
  raised_ = true;
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

Interrupt::Guard::Guard(Interrupt& interrupt, grpc::ClientContext& context)
    : interrupt_(interrupt), context_(context) {
  const absl::MutexLock lock(&interrupt_.mutex_);
  interrupt_.contexts_.insert(&context_);
  if (interrupt_.raised_) context_.TryCancel();
}

Interrupt::Guard::~Guard() {
  const absl::MutexLock lock(&interrupt_.mutex_);
  interrupt_.contexts_.erase(&context_);
}

}  // namespace structattn::client
