// Checked access to a JSON document. Knows no tokenizer.
#include "server/model/tokenizer/json_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace structattn {
namespace {

constexpr int kMaxNesting = 64;

// The deepest nesting of brackets outside strings, whether or not the text is JSON.
int Nesting(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

const nlohmann::json& Null() {
  static const nlohmann::json null;
  return null;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text) {
  if (const int depth = Nesting(text); depth > kMaxNesting) {
    return absl::InvalidArgumentError(
        absl::StrFormat("JSON nested %d deep: at most %d are allowed", depth, kMaxNesting));
  }
  nlohmann::json document =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return absl::InvalidArgumentError("malformed JSON");
  return document;
}

JsonNode JsonNode::operator[](const std::string& field) const {
  std::string path = path_.empty() ? field : absl::StrCat(path_, ".", field);
  if (!value_->is_object()) return {Null(), std::move(path)};
  const auto found = value_->find(field);
  return {found == value_->end() ? Null() : *found, std::move(path)};
}

JsonNode JsonNode::At(size_t index) const {
  return {(*value_)[index], absl::StrFormat("%s[%d]", path_, index)};
}

absl::Status JsonNode::Refuse(const std::string& message) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_.empty() ? "tokenizer.json" : path_, ": ", message));
}

absl::Status JsonNode::ExpectObject() const {
  if (value_->is_object()) return absl::OkStatus();
  return Refuse(absl::StrCat(value_->type_name(), ": an object is needed"));
}

absl::Status JsonNode::ExpectArray() const {
  if (value_->is_array()) return absl::OkStatus();
  return Refuse(absl::StrCat(value_->type_name(), ": an array is needed"));
}

absl::StatusOr<std::string> JsonNode::String() const {
  if (value_->is_string()) return value_->get<std::string>();
  return Refuse(absl::StrCat(value_->type_name(), ": a string is needed"));
}

absl::StatusOr<bool> JsonNode::Bool() const {
  if (value_->is_boolean()) return value_->get<bool>();
  return Refuse(absl::StrCat(value_->type_name(), ": true or false is needed"));
}

absl::StatusOr<bool> JsonNode::BoolOr(bool fallback) const {
  if (is_null()) return fallback;
  return Bool();
}

absl::StatusOr<int32_t> JsonNode::Integer(int32_t limit) const {
  if (value_->is_number_unsigned()) {
    const auto number = value_->get<uint64_t>();
    if (number < static_cast<uint64_t>(limit)) return static_cast<int32_t>(number);
  }
  const std::string given = value_->is_number() ? value_->dump() : value_->type_name();
  return Refuse(absl::StrFormat("%s: an integer from 0 to %d is needed", given, limit - 1));
}

}  // namespace structattn
