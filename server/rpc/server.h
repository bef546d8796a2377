// The gRPC server: its services, its port, and the three states loading -> serving -> draining.
// Driven by server/main; tests run it in their own process on port 0. Loads no model.
#ifndef STRUCTATTN_SERVER_RPC_SERVER_H_
#define STRUCTATTN_SERVER_RPC_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/model_registry.h"
#include "server/rpc/health_service.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/model_service.h"

namespace structattn {

struct RpcServerOptions {
  std::string host = "127.0.0.1";  // A name, an IPv4 address, or an IPv6 address in brackets.
  int port = 0;                    // 0: the system picks one.
  RequestLimits limits;
  std::string model_root;  // Empty: no loading over the wire.
};

class RpcServer {
 public:
  // Binds the port, exclusively, and answers from then on: health says NOT_SERVING, inference
  // UNAVAILABLE. ALREADY_EXISTS when the port is taken; UNAVAILABLE when it cannot be bound
  // otherwise. `registry` outlives the server and hears from it through its health hook.
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
  void UpdateHealth();  // health_mutex_ held.

  engine::ModelRegistry* const registry_;
  HealthService health_;
  InferenceService inference_;
  ModelService models_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::mutex health_mutex_;
  bool open_ = false;                     // Guarded by health_mutex_.
  std::set<std::string> serving_models_;  // Guarded by health_mutex_.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_SERVER_H_
