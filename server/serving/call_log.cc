// Implements call_log.h.
#include "server/serving/call_log.h"

#include "server/serving/log.h"

namespace structattn::serving {

void LogCall(const CallRecord& record) {
  LogFields fields = {{"method", record.method},
                      {"caller", record.caller},
                      {"request_id", record.request_id},
                      {"model", record.model},
                      {"code", absl::StatusCodeToString(record.outcome.code())}};
  if (!record.outcome.ok()) fields["error"] = std::string(record.outcome.message());
  if (record.usage.has_value()) {
    const CallUsage& usage = *record.usage;
    if (usage.finish_reason.has_value()) {
      fields["finish_reason"] = FinishReasonName(*usage.finish_reason);
      fields["generated_tokens"] = usage.generated_tokens;
    }
    fields.update({{"prompt_tokens", usage.prompt_tokens},
                   {"cached_tokens", usage.cached_tokens},
                   {"queue_ms", absl::ToDoubleMilliseconds(usage.queue)},
                   {"prefill_ms", absl::ToDoubleMilliseconds(usage.prefill)},
                   {"decode_ms", absl::ToDoubleMilliseconds(usage.decode)}});
  }
  Log(spdlog::level::info, "request", fields);
}

std::string_view FinishReasonName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kStopToken:
      return "stop_token";
    case engine::FinishReason::kStopString:
      return "stop_string";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "cancelled";
    case engine::FinishReason::kDeadline:
      return "deadline";
  }
  return "";
}

}  // namespace structattn::serving
