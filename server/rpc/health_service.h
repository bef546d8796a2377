// grpc.health.v1: which services may be sent requests. Names: "" (the server),
// "structattn.v1.InferenceService" and "model/NAME" for each loaded model. It starts with nothing
// serving, which gRPC's built-in service cannot, and ends its watches so that a drain does not wait
// for them.
#ifndef STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_

#include <map>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace structattn::rpc {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  HealthService();
  ~HealthService() override;

  // Makes `name` known. Thread-safe, as is everything here.
  void Set(const std::string& name, bool serving);
  // Ends every watch, and every later one at once. For shutdown.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  void Notify(const std::string& name, Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(Watcher* watcher);

  absl::Mutex mutex_;  // Guards the watchers' state, too.
  std::map<std::string, Status> statuses_ ABSL_GUARDED_BY(mutex_);
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_
