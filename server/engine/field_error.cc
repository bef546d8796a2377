// See field_error.h. The payload is "field \n reason"; neither contains a line break.
#include "server/engine/field_error.h"

#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace structattn::engine {
namespace {

constexpr char kPayloadType[] = "structattn/field_error";

}  // namespace

absl::Status FieldError(absl::StatusCode code, const FieldErrorDetail& detail,
                        std::string_view message) {
  absl::Status status(
      code, absl::StrCat(detail.field, detail.field.empty() ? "" : ": ", std::string(message)));
  status.SetPayload(kPayloadType, absl::Cord(absl::StrCat(detail.field, "\n", detail.reason)));
  return status;
}

absl::Status InvalidField(std::string_view field, std::string_view reason,
                          std::string_view message) {
  return FieldError(absl::StatusCode::kInvalidArgument,
                    {.field = std::string(field), .reason = std::string(reason)}, message);
}

std::optional<FieldErrorDetail> GetFieldErrorDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadType);
  if (!payload.has_value()) return std::nullopt;
  std::pair<std::string, std::string> parts =
      absl::StrSplit(std::string(*payload), absl::MaxSplits('\n', 1));
  return FieldErrorDetail{.field = std::move(parts.first), .reason = std::move(parts.second)};
}

}  // namespace structattn::engine
