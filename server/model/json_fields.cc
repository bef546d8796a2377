// See json_fields.h.
#include "server/model/json_fields.h"

#include <limits>

#include "server/model/refusal.h"

namespace structattn {

const Json* Fields::Find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Fields::Read(std::string_view key, int64_t& target) const {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) return WrongKind(key, *value, "an integer");
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return WrongKind(key, *value, "an integer below 2^63");
  }
  target = value->get<int64_t>();
  return absl::OkStatus();
}

absl::Status Fields::Read(std::string_view key, double& target) const {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return WrongKind(key, *value, "a number");
  target = value->get<double>();
  return absl::OkStatus();
}

absl::Status Fields::Read(std::string_view key, bool& target) const {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return WrongKind(key, *value, "true or false");
  target = value->get<bool>();
  return absl::OkStatus();
}

absl::Status Fields::Read(std::string_view key, std::string& target) const {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return WrongKind(key, *value, "a string");
  target = value->get<std::string>();
  return absl::OkStatus();
}

absl::Status Fields::WrongKind(std::string_view key, const Json& value, std::string_view needed) {
  return Refuse(key, " is ", Quoted(value.dump()), ", ", needed, " is needed");
}

}  // namespace structattn
