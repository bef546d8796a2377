// Checks and fields that every kind of request has, for the codecs of server/rpc. Errors are
// FieldErrors at the given field.
#ifndef STRUCTATTN_SERVER_RPC_REQUEST_CHECKS_H_
#define STRUCTATTN_SERVER_RPC_REQUEST_CHECKS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/engine/cache/sequence_blocks.h"
#include "server/engine/prompt/prompt.h"
#include "server/model/model.h"
#include "server/rpc/request_codec.h"

namespace structattn {

// [low, high], or (low, high].
struct Range {
  float low;
  float high;
  bool low_allowed = true;
};

// NaN is in no range.
absl::Status CheckRange(std::string_view field, float value, const Range& range);
absl::Status CheckTokenId(const std::string& field, int32_t id, int64_t vocabulary_size);
absl::Status CheckCount(std::string_view field, int64_t count, int64_t max);
absl::Status CheckTopLogprobs(std::string_view field, int32_t count);

// What every request says beside its question.
struct RequestEnvelope {
  engine::CachePolicy cache;
  absl::Time arrival;
  absl::Time deadline;  // By timeout_ms alone.
};

absl::StatusOr<RequestEnvelope> DecodeEnvelope(std::string_view request_id, int64_t timeout_ms,
                                               const v1::CachePolicy& cache);
template <typename Message>
absl::StatusOr<RequestEnvelope> DecodeEnvelope(const Message& request) {
  return DecodeEnvelope(request.request_id(), request.timeout_ms(), request.cache());
}

engine::PromptLimits LimitsFor(const Model& model, const RequestLimits& limits);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_REQUEST_CHECKS_H_
