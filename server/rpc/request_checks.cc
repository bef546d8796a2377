// See request_checks.h.
#include "server/rpc/request_checks.h"

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"

namespace structattn {
namespace {

constexpr size_t kMaxCacheSaltBytes = 256;
constexpr int32_t kMaxTopLogprobs = 20;

}  // namespace

absl::Status CheckRange(std::string_view field, float value, const Range& range) {
  const bool high_enough = range.low_allowed ? value >= range.low : value > range.low;
  if (high_enough && value <= range.high) return absl::OkStatus();
  return engine::InvalidField(field, "VALUE_OUT_OF_RANGE",
                              absl::StrCat(value, " is not in ", range.low_allowed ? "[" : "(",
                                           range.low, ", ", range.high, "]"));
}

absl::Status CheckTokenId(const std::string& field, int32_t id, int64_t vocabulary_size) {
  if (id >= 0 && id < vocabulary_size) return absl::OkStatus();
  return engine::InvalidField(field, "TOKEN_ID_OUT_OF_RANGE",
                              absl::StrCat(id, " is not in 0..", vocabulary_size - 1));
}

absl::Status CheckCount(std::string_view field, int64_t count, int64_t max) {
  if (count <= max) return absl::OkStatus();
  return engine::InvalidField(field, "TOO_MANY_ENTRIES",
                              absl::StrCat(count, " entries; at most ", max, " are allowed"));
}

absl::Status CheckTopLogprobs(std::string_view field, int32_t count) {
  if (count >= 0 && count <= kMaxTopLogprobs) return absl::OkStatus();
  return engine::InvalidField(field, "VALUE_OUT_OF_RANGE",
                              absl::StrCat(count, " is not in 0..", kMaxTopLogprobs));
}

absl::StatusOr<RequestEnvelope> DecodeEnvelope(std::string_view request_id, int64_t timeout_ms,
                                               const v1::CachePolicy& cache) {
  if (request_id.size() > kMaxRequestIdBytes) {
    return engine::InvalidField(
        "request_id", "REQUEST_ID_TOO_LONG",
        absl::StrCat(request_id.size(), " bytes; at most ", kMaxRequestIdBytes, " are allowed"));
  }
  if (timeout_ms < 0) {
    return engine::InvalidField("timeout_ms", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(timeout_ms, " is negative; 0 means no limit"));
  }
  if (cache.salt().size() > kMaxCacheSaltBytes) {
    return engine::InvalidField(
        "cache.salt", "CACHE_SALT_TOO_LONG",
        absl::StrCat(cache.salt().size(), " bytes; at most ", kMaxCacheSaltBytes, " are allowed"));
  }
  RequestEnvelope envelope = {.cache = {.bypass = cache.bypass(), .salt = cache.salt()},
                              .arrival = absl::Now(),
                              .deadline = absl::InfiniteFuture()};
  if (timeout_ms > 0) envelope.deadline = envelope.arrival + absl::Milliseconds(timeout_ms);
  return envelope;
}

engine::PromptLimits LimitsFor(const Model& model, const RequestLimits& limits) {
  return {.vocabulary_size = model.config.vocab_size,
          .context_length = model.config.context_length,
          .max_prompt_bytes = limits.max_prompt_bytes,
          .max_segments = limits.max_segments};
}

}  // namespace structattn
