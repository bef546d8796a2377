// JSON as a model's files hold it, parsed strictly: no duplicate keys, no deep nesting. NaN
// and Infinity, which Python writes, are read as strings, so that they are refused where a number
// is needed and nowhere else. Not for a safetensors header, which has a parser of its own.
#ifndef STRUCTATTN_SERVER_MODEL_STRICT_JSON_H_
#define STRUCTATTN_SERVER_MODEL_STRICT_JSON_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace structattn {

// An object, or an error that says where the text goes wrong.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text);

// A parser's message, cut to a printable length (it may quote the file).
std::string JsonErrorMessage(const nlohmann::json::exception& error);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_STRICT_JSON_H_
