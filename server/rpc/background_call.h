// A unary call whose work blocks: it runs on a thread of its own, never on gRPC's.
// Used by ModelService for Load and Unload. The client may leave early; the work goes on.
#ifndef STRUCTATTN_SERVER_RPC_BACKGROUND_CALL_H_
#define STRUCTATTN_SERVER_RPC_BACKGROUND_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "server/rpc/status.h"

namespace structattn {

// One thread that does one job after the other.
class BackgroundQueue {
 public:
  BackgroundQueue();
  ~BackgroundQueue() { Stop(); }

  // Drops waiting jobs, refuses new ones and waits for the running one.
  void Stop();

  // False, and the job is dropped, when kMaxWaiting already wait.
  bool Post(std::function<void()> job);

  // A job is running.
  bool busy();

  static constexpr size_t kMaxWaiting = 16;

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  // Guarded by mutex_.
  bool running_ = false;                    // Guarded by mutex_.
  bool stopping_ = false;                   // Guarded by mutex_.
  std::thread thread_;
};

// Finishes with what `work` returns, or CANCELLED when the client leaves first.
template <typename Response>
class BackgroundCall final : public grpc::ServerUnaryReactor {
 public:
  using Work = std::function<absl::StatusOr<Response>()>;

  static grpc::ServerUnaryReactor* Start(BackgroundQueue* queue, Response* response, Work work) {
    auto call = std::make_shared<BackgroundCall>(response);
    call->self_ = call;
    const bool posted = queue->Post([call, work = std::move(work)] { call->Complete(work()); });
    if (!posted) call->Complete(absl::ResourceExhaustedError("too many model changes are waiting"));
    return call.get();
  }

  explicit BackgroundCall(Response* response) : response_(response) {}

  void OnCancel() override { Complete(absl::CancelledError("the client left")); }
  void OnDone() override { self_.reset(); }

 private:
  void Complete(absl::StatusOr<Response> result) {
    std::lock_guard lock(mutex_);
    if (std::exchange(completed_, true)) return;
    if (result.ok()) *response_ = *std::move(result);
    Finish(ToGrpcStatus(result.status()));
  }

  std::mutex mutex_;
  bool completed_ = false;    // Guarded by mutex_.
  Response* const response_;  // gRPC's; valid until completed_.
  std::shared_ptr<BackgroundCall> self_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_BACKGROUND_CALL_H_
