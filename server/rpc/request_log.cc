// See request_log.h.
#include "server/rpc/request_log.h"

#include "absl/time/time.h"
#include "server/rpc/log.h"
#include "server/rpc/response_codec.h"

namespace structattn {

void LogRequest(const RequestRecord& record) {
  const absl::StatusCode code =
      record.client_gone ? absl::StatusCode::kCancelled : record.outcome.code();
  LogFields fields = {{"method", record.method},
                      {"request_id", record.request_id},
                      {"model", record.model},
                      {"code", absl::StatusCodeToString(code)}};
  if (!record.outcome.ok()) fields["error"] = std::string(record.outcome.message());
  if (record.finish.has_value()) {
    fields.update({{"finish_reason", FinishReasonName(record.finish->reason)},
                   {"prompt_tokens", record.finish->prompt_tokens},
                   {"generated_tokens", record.finish->generated_tokens},
                   {"cached_tokens", record.finish->cached_tokens},
                   {"queue_ms", absl::ToDoubleMilliseconds(record.finish->queue)},
                   {"prefill_ms", absl::ToDoubleMilliseconds(record.finish->prefill)},
                   {"decode_ms", absl::ToDoubleMilliseconds(record.finish->decode)}});
  }
  Log(spdlog::level::info, "request", fields);
}

}  // namespace structattn
