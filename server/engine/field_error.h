// A Status about one field of a request: which field, a machine-readable reason, and the message.
// server/rpc turns it into the details of the protocol in use.
#ifndef STRUCTATTN_SERVER_ENGINE_FIELD_ERROR_H_
#define STRUCTATTN_SERVER_ENGINE_FIELD_ERROR_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace structattn::engine {

struct FieldErrorDetail {
  std::string field;   // "segments[3].paraphrase_index"; empty: no field is to blame.
  std::string reason;  // UPPER_SNAKE_CASE: "PARAPHRASE_INDEX_OUT_OF_RANGE".
};

// An error with `detail` attached as a payload. The message says what was given and what is
// allowed.
absl::Status FieldError(absl::StatusCode code, const FieldErrorDetail& detail,
                        std::string_view message);

// INVALID_ARGUMENT, the usual case.
absl::Status InvalidField(std::string_view field, std::string_view reason,
                          std::string_view message);

// The detail of a status made above; nothing for other statuses.
std::optional<FieldErrorDetail> GetFieldErrorDetail(const absl::Status& status);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_FIELD_ERROR_H_
