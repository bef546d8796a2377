// The gRPC server: its services, its port, and the three states loading -> serving -> draining.
// It loads no model. Tests run it in their own process on port 0.
#ifndef STRUCTATTN_SERVER_RPC_SERVER_H_
#define STRUCTATTN_SERVER_RPC_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/model_registry.h"
#include "server/rpc/health_service.h"
#include "server/rpc/v1/inference_service.h"
#include "server/rpc/v1/model_service.h"
#include "server/serving/front_door.h"

namespace structattn::rpc {

struct RpcServerOptions {
  std::string host = "127.0.0.1";  // A name, an IPv4 address, or an IPv6 address in brackets.
  int port = 0;                    // 0: the system picks one.
  serving::Limits limits;
  std::string model_root;  // Empty: no loading over the wire.
};

class RpcServer {
 public:
  // Binds the port, exclusively, and answers from then on: health says NOT_SERVING, inference
  // UNAVAILABLE. ALREADY_EXISTS when the port is taken; UNAVAILABLE when it cannot be bound
  // otherwise. `registry` outlives the server; its health hook is set here.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          engine::ModelRegistry* registry);
  // Cancels what is left.
  ~RpcServer();

  // HOST:PORT, with the port that was really bound.
  const std::string& address() const { return address_; }

  // Takes requests from now on. Health follows the models: SERVING while at least one can answer.
  void Open();

  // Health says NOT_SERVING, but requests are still taken: load balancers need time to notice.
  void AnnounceDrain();
  // Takes no more requests, waits for running streams until `deadline`, cancels the rest and stops.
  // True when nothing had to be cancelled.
  bool Drain(absl::Time deadline);

  // A client's load or unload still runs; the destructor waits for it.
  bool changing_models() { return models_.busy(); }

 private:
  RpcServer(const RpcServerOptions& options, engine::ModelRegistry* registry);

  void SetModelHealth(const std::string& name, bool serving);
  void UpdateHealth() ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_mutex_);

  engine::ModelRegistry* const registry_;
  serving::FrontDoor door_;
  HealthService health_;
  InferenceService inference_;
  ModelService models_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  absl::Mutex health_mutex_;
  bool open_ ABSL_GUARDED_BY(health_mutex_) = false;
  std::set<std::string> serving_models_ ABSL_GUARDED_BY(health_mutex_);
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_SERVER_H_
