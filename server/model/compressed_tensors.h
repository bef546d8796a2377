// The `quantization_config` of compressed-tensors: config_groups with weights' arguments, and the
// format in which they are stored. Reads no tensor.
#ifndef STRUCTATTN_SERVER_MODEL_COMPRESSED_TENSORS_H_
#define STRUCTATTN_SERVER_MODEL_COMPRESSED_TENSORS_H_

#include "absl/status/statusor.h"
#include "server/model/folder_quantization.h"
#include "server/model/json_fields.h"

namespace structattn {

// Everything but the name. One form holds for the whole folder; what the activations' arguments say
// is not read, activations stay in --dtype.
absl::StatusOr<FolderQuantization> ReadCompressedTensors(const Fields& fields);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_COMPRESSED_TENSORS_H_
