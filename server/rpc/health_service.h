// grpc.health.v1: who may be sent requests. Names: "" (the server),
// "structattn.v1.InferenceService" and "model/NAME" for each loaded model. Told by
// server/rpc/server and model_manager; asked by load balancers. Starts with nothing serving, which
// gRPC's built-in service cannot; ends its watches so that a drain does not wait for them.
#ifndef STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_

#include <map>
#include <mutex>
#include <set>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"

namespace structattn {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  HealthService();
  ~HealthService() override;

  // Makes `name` known. Thread-safe, as is everything here.
  void Set(const std::string& name, bool serving);
  // Makes `name` unknown again.
  void Remove(const std::string& name);
  // Every name NOT_SERVING.
  void SetAllNotServing();
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

  void Notify(const std::string& name, Status status);  // mutex_ held.
  void Forget(Watcher* watcher);

  std::mutex mutex_;  // Of everything below and of the watchers' state.
  std::map<std::string, Status> statuses_;
  std::set<Watcher*> watchers_;
  bool ended_ = false;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_HEALTH_SERVICE_H_
