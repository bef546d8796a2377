// How many outputs and inputs of a matrix share a scale, as configs and names say it. It knows no
// method of quantization.
#ifndef STRUCTATTN_SERVER_MODEL_SCALE_TILE_H_
#define STRUCTATTN_SERVER_MODEL_SCALE_TILE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/folder_quantization.h"
#include "server/model/json_fields.h"

namespace structattn {

// `key` is [outputs, inputs].
absl::StatusOr<ScaleTile> ReadScaleTile(std::string_view key, const Json& value);

// "tensor", "channel", "g128" or "128x128".
std::string Name(const ScaleTile& tile);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_SCALE_TILE_H_
