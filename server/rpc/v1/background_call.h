// A unary call whose work blocks: it runs on a thread of its own, never on gRPC's. The client may
// leave early; the work is done all the same.
#ifndef STRUCTATTN_SERVER_RPC_V1_BACKGROUND_CALL_H_
#define STRUCTATTN_SERVER_RPC_V1_BACKGROUND_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/v1/field_paths.h"

namespace structattn::rpc {

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

  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
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
    absl::MutexLock lock(&mutex_);
    if (std::exchange(completed_, true)) return;
    const absl::Status status = result.status();
    if (status.ok()) *response_ = *std::move(result);
    Finish(ToV1Status(status));
  }

  absl::Mutex mutex_;
  bool completed_ ABSL_GUARDED_BY(mutex_) = false;
  Response* const response_;  // gRPC's; valid until completed_.
  std::shared_ptr<BackgroundCall> self_;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_BACKGROUND_CALL_H_
