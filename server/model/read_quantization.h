// `quantization_config` of config.json -> FolderQuantization. Refuses methods and settings that are
// not supported by name; reads no tensor.
#ifndef STRUCTATTN_SERVER_MODEL_READ_QUANTIZATION_H_
#define STRUCTATTN_SERVER_MODEL_READ_QUANTIZATION_H_

#include "absl/status/statusor.h"
#include "server/model/folder_quantization.h"
#include "server/model/json_fields.h"

namespace structattn {

absl::StatusOr<FolderQuantization> ReadFolderQuantization(const Json& quantization_config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_READ_QUANTIZATION_H_
