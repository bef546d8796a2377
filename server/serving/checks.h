// Checks of single values that requests of every kind share. An error is a FieldError at the given
// logical path, which a protocol turns into its own field's name.
#ifndef STRUCTATTN_SERVER_SERVING_CHECKS_H_
#define STRUCTATTN_SERVER_SERVING_CHECKS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/serving/requests.h"

namespace structattn::serving {

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
absl::Status CheckHeader(const RequestHeader& header);

// [A-Za-z0-9._-]{1,64}: names of models.
bool IsModelName(std::string_view name);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_CHECKS_H_
