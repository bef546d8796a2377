// The choice between the checkpoint formats. Reads no tensor itself.
#include "server/model/checkpoint.h"

#include <sys/stat.h>

#include "server/model/gguf_checkpoint.h"
#include "server/model/hf_checkpoint.h"
#include "server/model/refusal.h"

namespace structattn {
absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(Concat(path, ": no such model file or directory"));
  }
  return S_ISDIR(info.st_mode) ? OpenHfCheckpoint(path) : OpenGgufCheckpoint(path);
}

}  // namespace structattn
