// Implements health_service.h. gRPC runs no callback inside a Start* or Finish call, so these are
// made with the mutex held.
#include "server/rpc/health_service.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "server/rpc/status.h"

namespace structattn::rpc {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One Watch stream. Writes the newest status; ones that were overtaken are skipped. All members but
// the callbacks are called with the service's mutex held.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* service, std::string name) : service_(service), name_(std::move(name)) {}

  const std::string& name() const { return name_; }

  // States that the caller holds the service's lock under its own name.
  void AssertLocked() const ABSL_ASSERT_EXCLUSIVE_LOCK(service_->mutex_) {
    service_->mutex_.AssertHeld();
  }

  void Push(Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
    wanted_ = status;
    Pump();
  }

  // After the newest status has been written.
  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
    if (!end_.has_value()) end_ = status;
    Pump();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&service_->mutex_);
    writing_ = false;
    if (ok) return Pump();
    Leave();
  }

  void OnCancel() override {
    absl::MutexLock lock(&service_->mutex_);
    Leave();
  }

  void OnDone() override {
    service_->Forget(this);
    delete this;
  }

 private:
  // The client is gone: nothing more is written.
  void Leave() ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
    client_gone_ = true;
    End(grpc::Status::CANCELLED);
  }

  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(service_->mutex_) {
    if (writing_ || finished_) return;
    const bool is_new = !sent_any_ || wanted_ != response_.status();
    if (is_new && !client_gone_) {
      response_.set_status(wanted_);
      writing_ = sent_any_ = true;
      StartWrite(&response_);
    } else if (end_.has_value()) {
      finished_ = true;
      Finish(*end_);
    }
  }

  HealthService* const service_;
  const std::string name_;
  HealthCheckResponse response_;  // In flight while writing_.
  Status wanted_ = HealthCheckResponse::SERVICE_UNKNOWN;
  std::optional<grpc::Status> end_;  // Set once the stream shall end.
  bool sent_any_ = false;
  bool writing_ = false;
  bool client_gone_ = false;
  bool finished_ = false;
};

HealthService::HealthService() { statuses_[""] = HealthCheckResponse::NOT_SERVING; }

HealthService::~HealthService() = default;

void HealthService::Set(const std::string& name, bool serving) {
  absl::MutexLock lock(&mutex_);
  Notify(name, statuses_[name] =
                   serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
}

void HealthService::EndWatches() {
  absl::MutexLock lock(&mutex_);
  ended_ = true;
  for (Watcher* watcher : watchers_) {
    watcher->AssertLocked();
    watcher->End(ToGrpcStatus(absl::UnavailableError("the server is stopping")));
  }
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::MutexLock lock(&mutex_);
  const auto found = statuses_.find(request->service());
  if (found == statuses_.end()) {
    reactor->Finish(ToGrpcStatus(absl::NotFoundError("service name unknown to health checks")));
  } else {
    response->set_status(found->second);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  auto* watcher = new Watcher(this, request->service());
  absl::MutexLock lock(&mutex_);
  watcher->AssertLocked();
  watchers_.insert(watcher);
  const auto found = statuses_.find(watcher->name());
  watcher->Push(found == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : found->second);
  if (ended_) watcher->End(ToGrpcStatus(absl::UnavailableError("the server is stopping")));
  return watcher;
}

void HealthService::Notify(const std::string& name, Status status) {
  for (Watcher* watcher : watchers_) {
    watcher->AssertLocked();
    if (watcher->name() == name) watcher->Push(status);
  }
}

void HealthService::Forget(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

}  // namespace structattn::rpc
