// The choice between the checkpoint formats. Reads no tensor itself.
#include "server/model/checkpoint.h"

#include "server/model/gguf_checkpoint.h"
#include "server/model/hf_checkpoint.h"
#include "server/model/model_path.h"
#include "server/model/status_macros.h"

namespace structattn {

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  STRUCTATTN_ASSIGN_OR_RETURN(const ModelPath model, ResolveModelPath(path));
  return model.is_folder ? OpenHfCheckpoint(model.path) : OpenGgufCheckpoint(model.path);
}

}  // namespace structattn
