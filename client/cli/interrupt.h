// Ctrl-C: cancels the calls in flight, so that the server stops working for nobody.
// One Interrupt lives in main; the commands register each call with it.
#ifndef STRUCTATTN_CLIENT_CLI_INTERRUPT_H_
#define STRUCTATTN_CLIENT_CLI_INTERRUPT_H_

#include <grpcpp/client_context.h>

#include <atomic>
#include <mutex>
#include <set>

namespace structattn::client {

class Interrupt {
 public:
  // Blocks SIGINT and SIGTERM in this thread and those started later, and waits for them in a
  // thread of its own. Call before any other thread starts.
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
  std::mutex mutex_;
  std::set<grpc::ClientContext*> contexts_;  // Guarded by mutex_.
};

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_INTERRUPT_H_
