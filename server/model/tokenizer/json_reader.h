// Reads typed fields of a JSON object; a missing or mistyped one is refused with its path. Knows no
// tokenizer.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_READER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace structattn {

// Parses text that comes from outside: malformed or deeply nested JSON is refused.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text);

// A JSON value and where it stands. The document must outlive it.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string path)
      : value_(&value), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_->is_null(); }
  size_t size() const { return value_->size(); }

  // The field of an object, or null if there is none.
  JsonNode operator[](const std::string& field) const;
  JsonNode At(size_t index) const;

  absl::Status ExpectObject() const;
  absl::Status ExpectArray() const;
  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  // An integer in [0, limit).
  absl::StatusOr<int32_t> Integer(int32_t limit) const;
  // The fallback where the field is absent or null.
  absl::StatusOr<bool> BoolOr(bool fallback) const;

  // "PATH: MESSAGE".
  absl::Status Refuse(const std::string& message) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_READER_H_
