// See scale_tile.h.
#include "server/model/scale_tile.h"

#include <string>

#include "server/model/refusal.h"

namespace structattn {

absl::StatusOr<ScaleTile> ReadScaleTile(std::string_view key, const Json& value) {
  const auto valid = [](const Json& size) {
    return size.is_number_integer() && size >= 1 && size <= ScaleTile::kMost;
  };
  if (!value.is_array() || value.size() != 2 || !valid(value[0]) || !valid(value[1])) {
    return Refuse(key, " ", Quoted(value.dump()), ": allowed are two numbers from 1 to ",
                  ScaleTile::kMost);
  }
  return ScaleTile{value[0].get<int64_t>(), value[1].get<int64_t>()};
}

std::string Name(const ScaleTile& tile) {
  if (tile.outputs == ScaleTile::kAll) return "tensor";
  if (tile.inputs == ScaleTile::kAll) return "channel";
  return tile.outputs == 1 ? Concat("g", tile.inputs) : Concat(tile.outputs, "x", tile.inputs);
}

}  // namespace structattn
