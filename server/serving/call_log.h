// The one log line of a call, whichever protocol and method brought it. It never carries prompt or
// output text.
#ifndef STRUCTATTN_SERVER_SERVING_CALL_LOG_H_
#define STRUCTATTN_SERVER_SERVING_CALL_LOG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/task/generate_events.h"

namespace structattn::serving {

// What a call took, where the engine has ended it.
struct CallUsage {
  std::optional<engine::FinishReason> finish_reason = {};  // How the generated text ended.
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t generated_tokens = 0;
  absl::Duration queue = absl::ZeroDuration();
  absl::Duration prefill = absl::ZeroDuration();
  absl::Duration decode = absl::ZeroDuration();
};

struct CallRecord {
  std::string method;
  std::string caller;
  std::string request_id;
  std::string model;
  absl::Status outcome;
  std::optional<CallUsage> usage = {};
};

void LogCall(const CallRecord& record);

// The reason as results and logs spell it: "stop", "stop_token", ...
std::string_view FinishReasonName(engine::FinishReason reason);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_CALL_LOG_H_
