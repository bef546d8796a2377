// What a path that is named as a model is: a Hugging Face folder, a GGUF file, or something else
// that is often taken for one, whose refusal says what it is. Looks at names and at small text
// files, never at weights.
#ifndef STRUCTATTN_SERVER_MODEL_MODEL_PATH_H_
#define STRUCTATTN_SERVER_MODEL_MODEL_PATH_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace structattn {

struct ModelPath {
  bool is_folder = false;  // Of Hugging Face; else a GGUF file.
  std::string path;
};

// A folder that holds one GGUF model and no config.json is that model.
absl::StatusOr<ModelPath> ResolveModelPath(const std::string& path);

// Why a Hugging Face folder has no safetensors files: what is there instead.
absl::Status NoSafetensors(const std::string& folder);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_MODEL_PATH_H_
