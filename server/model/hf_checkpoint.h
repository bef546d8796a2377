// A Hugging Face model directory as a Checkpoint. Follows symbolic links of files (the Hugging Face
// cache is made of them), never a name with a path in it.
#ifndef STRUCTATTN_SERVER_MODEL_HF_CHECKPOINT_H_
#define STRUCTATTN_SERVER_MODEL_HF_CHECKPOINT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/checkpoint.h"

namespace structattn {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHfCheckpoint(const std::string& directory);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_HF_CHECKPOINT_H_
