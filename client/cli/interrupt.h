// Turns Ctrl-C into a cancel of the calls in flight, so that the server stops computing an answer
// that is not read. It decides no exit code but that of a second signal.
#ifndef STRUCTATTN_CLIENT_CLI_INTERRUPT_H_
#define STRUCTATTN_CLIENT_CLI_INTERRUPT_H_

#include <grpcpp/client_context.h>

#include <atomic>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace structattn::client {

class Interrupt {
 public:
  // Blocks SIGINT and SIGTERM in this thread and those started later, and waits for them in a
  // thread of its own. It must be made before any other thread starts.
  Interrupt();

  bool raised() const { return raised_; }

  // Keeps `context` cancellable while in scope.
  class Guard {
   public:
    Guard(Interrupt& interrupt, grpc::ClientContext& context);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    Interrupt& interrupt_;
    grpc::ClientContext& context_;
  };

 private:
  void Raise();

  std::atomic<bool> raised_{false};
  absl::Mutex mutex_;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_INTERRUPT_H_
