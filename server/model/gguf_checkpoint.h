// A GGUF file as a Checkpoint. Knows nothing of other formats: Checkpoint::Open chooses.
#ifndef STRUCTATTN_SERVER_MODEL_GGUF_CHECKPOINT_H_
#define STRUCTATTN_SERVER_MODEL_GGUF_CHECKPOINT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/checkpoint.h"

namespace structattn {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGgufCheckpoint(const std::string& path);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_GGUF_CHECKPOINT_H_
