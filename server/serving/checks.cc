// Implements checks.h.
#include "server/serving/checks.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/serving/limits.h"

namespace structattn::serving {

using engine::InvalidField;

absl::Status CheckRange(std::string_view field, float value, const Range& range) {
  const bool high_enough = range.low_allowed ? value >= range.low : value > range.low;
  if (high_enough && value <= range.high) return absl::OkStatus();
  return InvalidField(field, "VALUE_OUT_OF_RANGE",
                      absl::StrCat(value, " is not in ", range.low_allowed ? "[" : "(", range.low,
                                   ", ", range.high, "]"));
}

absl::Status CheckTokenId(const std::string& field, int32_t id, int64_t vocabulary_size) {
  if (id >= 0 && id < vocabulary_size) return absl::OkStatus();
  return InvalidField(field, "TOKEN_ID_OUT_OF_RANGE",
                      absl::StrCat(id, " is not in 0..", vocabulary_size - 1));
}

absl::Status CheckCount(std::string_view field, int64_t count, int64_t max) {
  if (count <= max) return absl::OkStatus();
  return InvalidField(field, "TOO_MANY_ENTRIES",
                      absl::StrCat(count, " entries; at most ", max, " are allowed"));
}

absl::Status CheckTopLogprobs(std::string_view field, int32_t count) {
  if (count >= 0 && count <= Limits::kMaxTopLogprobs) return absl::OkStatus();
  return InvalidField(field, "VALUE_OUT_OF_RANGE",
                      absl::StrCat(count, " is not in 0..", Limits::kMaxTopLogprobs));
}

absl::Status CheckHeader(const RequestHeader& header) {
  if (header.request_id.size() > Limits::kMaxRequestIdBytes) {
    return InvalidField("request_id", "REQUEST_ID_TOO_LONG",
                        absl::StrCat(header.request_id.size(), " bytes; at most ",
                                     Limits::kMaxRequestIdBytes, " are allowed"));
  }
  if (header.timeout_ms < 0) {
    return InvalidField("timeout_ms", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(header.timeout_ms, " is negative; 0 means no limit"));
  }
  if (header.cache.salt.size() > Limits::kMaxCacheSaltBytes) {
    return InvalidField("cache.salt", "CACHE_SALT_TOO_LONG",
                        absl::StrCat(header.cache.salt.size(), " bytes; at most ",
                                     Limits::kMaxCacheSaltBytes, " are allowed"));
  }
  return absl::OkStatus();
}

bool IsModelName(std::string_view name) {
  return !name.empty() && name.size() <= Limits::kMaxModelNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace structattn::serving
