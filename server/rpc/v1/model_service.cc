// Implements model_service.h.
#include "server/rpc/v1/model_service.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/rpc/v1/field_paths.h"
#include "server/rpc/v1/response_codec.h"
#include "server/serving/checks.h"

namespace structattn::rpc {
namespace {

namespace fs = std::filesystem;

// `path` without any "..": it cannot leave the folder that it is relative to.
bool StaysBelow(const fs::path& path) {
  return !path.empty() && path.is_relative() && *path.begin() != "..";
}

absl::Status OutsideRoot() {
  return engine::InvalidField("path", "PATH_OUTSIDE_MODEL_ROOT",
                              "leaves the model root; allowed are relative paths below it");
}

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToV1Status(status));
  return reactor;
}

}  // namespace

absl::StatusOr<std::string> ResolveBelowRoot(const std::string& root, const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return engine::InvalidField("path", "PATH_INVALID",
                                "empty or with a NUL byte; a relative path is needed");
  }
  if (!StaysBelow(fs::path(path).lexically_normal())) return OutsideRoot();
  std::error_code error;
  const fs::path real_root = fs::canonical(root, error);
  if (error) return absl::InternalError(absl::StrCat("model root: ", error.message()));
  const fs::path real = fs::canonical(real_root / path, error);
  if (error) {
    return engine::FieldError(
        absl::StatusCode::kNotFound, {.field = "path", .reason = "PATH_NOT_FOUND"},
        absl::StrCat("\"", path, "\" below the model root: ", error.message()));
  }
  if (!StaysBelow(real.lexically_relative(real_root))) return OutsideRoot();
  return real.string();
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest*,
                                                   v1::ListModelsResponse* response) {
  for (const std::shared_ptr<engine::ServedModel>& served : registry_->List()) {
    *response->add_models() = EncodeModel(*served);
  }
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context,
                                                 const v1::GetModelRequest* request,
                                                 v1::GetModelResponse* response) {
  const absl::StatusOr<std::shared_ptr<engine::ServedModel>> served =
      registry_->Find(request->name());
  if (served.ok()) *response->mutable_model() = EncodeModel(**served);
  return Answer(context, served.status());
}

grpc::ServerUnaryReactor* ModelService::LoadModel(grpc::CallbackServerContext*,
                                                  const v1::LoadModelRequest* request,
                                                  v1::LoadModelResponse* response) {
  using Call = BackgroundCall<v1::LoadModelResponse>;
  return Call::Start(
      &background_, response,
      [this, request = *request]() -> absl::StatusOr<v1::LoadModelResponse> {
        STRUCTATTN_ASSIGN_OR_RETURN(const engine::ModelSource source, CheckLoad(request));
        STRUCTATTN_RETURN_IF_ERROR(registry_->Load(source));
        STRUCTATTN_ASSIGN_OR_RETURN(const std::shared_ptr<engine::ServedModel> served,
                                    registry_->Find(source.name));
        v1::LoadModelResponse loaded;
        *loaded.mutable_model() = EncodeModel(*served);
        return loaded;
      });
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext*,
                                                    const v1::UnloadModelRequest* request,
                                                    v1::UnloadModelResponse* response) {
  using Call = BackgroundCall<v1::UnloadModelResponse>;
  return Call::Start(&background_, response,
                     [this, name = request->name()]() -> absl::StatusOr<v1::UnloadModelResponse> {
                       STRUCTATTN_RETURN_IF_ERROR(CheckRootConfigured());
                       STRUCTATTN_RETURN_IF_ERROR(registry_->Unload(name));
                       return v1::UnloadModelResponse();
                     });
}

absl::Status ModelService::CheckRootConfigured() const {
  if (!model_root_.empty()) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "models cannot be changed: this server was started without --model-root");
}

absl::StatusOr<engine::ModelSource> ModelService::CheckLoad(
    const v1::LoadModelRequest& request) const {
  STRUCTATTN_RETURN_IF_ERROR(CheckRootConfigured());
  if (!serving::IsModelName(request.name())) {
    return engine::InvalidField("name", "MODEL_NAME_INVALID",
                                "allowed are 1..64 of A-Z a-z 0-9 . _ -");
  }
  STRUCTATTN_ASSIGN_OR_RETURN(std::string path, ResolveBelowRoot(model_root_, request.path()));
  return engine::ModelSource{.name = request.name(), .path = std::move(path)};
}

}  // namespace structattn::rpc
