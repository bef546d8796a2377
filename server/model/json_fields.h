// The fields of a JSON object in a model's files, read with their kinds checked. It knows no key
// and no default.
#ifndef STRUCTATTN_SERVER_MODEL_JSON_FIELDS_H_
#define STRUCTATTN_SERVER_MODEL_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace structattn {

using Json = nlohmann::json;

// JSON's null counts as missing. The object outlives its Fields.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  // The value of a key, or nullptr.
  const Json* Find(std::string_view key) const;
  // Whether the key is there, null or not.
  bool Names(std::string_view key) const { return object_.contains(key); }

  // Leaves `target` as it is where the key is missing, and refuses a value of another kind.
  absl::Status Read(std::string_view key, int64_t& target) const;
  absl::Status Read(std::string_view key, double& target) const;
  absl::Status Read(std::string_view key, bool& target) const;
  absl::Status Read(std::string_view key, std::string& target) const;

  // "KEY is 'VALUE', NEEDED is needed".
  static absl::Status WrongKind(std::string_view key, const Json& value, std::string_view needed);

 private:
  const Json& object_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_JSON_FIELDS_H_
