// structattn.v1.ModelService: which models answer, and changing that below the model root.
// It loads nothing itself: server/engine/model_registry does, on the background thread.
#ifndef STRUCTATTN_SERVER_RPC_V1_MODEL_SERVICE_H_
#define STRUCTATTN_SERVER_RPC_V1_MODEL_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/engine/model_registry.h"
#include "server/rpc/v1/background_call.h"
#include "structattn/v1/model_service.grpc.pb.h"

namespace structattn::rpc {

// The real path of `path` below `root`. Refuses absolute paths, paths that leave the root (also by
// a symbolic link), and what does not exist. Errors are about the field "path".
absl::StatusOr<std::string> ResolveBelowRoot(const std::string& root, const std::string& path);

class ModelService final : public v1::ModelService::CallbackService {
 public:
  // `registry` outlives the service. An empty root: Load and Unload are refused.
  ModelService(engine::ModelRegistry* registry, std::string model_root)
      : registry_(registry), model_root_(std::move(model_root)) {}

  // A model is being loaded or unloaded.
  bool busy() { return background_.busy(); }
  // Waits for the change that is being made; later ones are refused.
  void Stop() { background_.Stop(); }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context,
                                      const v1::LoadModelRequest* request,
                                      v1::LoadModelResponse* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;

 private:
  absl::Status CheckRootConfigured() const;
  absl::StatusOr<engine::ModelSource> CheckLoad(const v1::LoadModelRequest& request) const;

  engine::ModelRegistry* const registry_;
  const std::string model_root_;
  BackgroundQueue background_;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_MODEL_SERVICE_H_
