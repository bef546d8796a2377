// Implements prepared.h.
#include "tests/server/rpc/v1/prepared.h"

#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/rpc/v1/field_paths.h"
#include "server/rpc/v1/request_codec.h"
#include "server/serving/generate_checks.h"

namespace structattn::rpc {

absl::StatusOr<engine::GenerateRequest> Prepared(const v1::GenerateRequest& request,
                                                 const Model& model) {
  serving::GenerateRequest decoded;
  STRUCTATTN_RETURN_IF_ERROR(DecodeGenerateRequest(request, {}, &decoded));
  STRUCTATTN_RETURN_IF_ERROR(serving::CheckGenerate(decoded, model, {}));
  return serving::PrepareGenerate(decoded, model, {});
}

absl::StatusOr<serving::PreparedScore> PreparedScoreOf(const v1::ScoreRequest& request,
                                                       const engine::ServedModel& served) {
  serving::ScoreRequest decoded;
  STRUCTATTN_RETURN_IF_ERROR(DecodeScoreRequest(request, {}, &decoded));
  STRUCTATTN_RETURN_IF_ERROR(serving::CheckScore(decoded, *served.model, {}));
  return serving::PrepareScore(decoded, served, {});
}

absl::StatusOr<serving::PreparedScore> PreparedScoreOf(const v1::ScoreRollingRequest& request,
                                                       const engine::ServedModel& served) {
  serving::ScoreRollingRequest decoded;
  STRUCTATTN_RETURN_IF_ERROR(DecodeScoreRollingRequest(request, &decoded));
  STRUCTATTN_RETURN_IF_ERROR(serving::CheckScoreRolling(decoded, *served.model, {}));
  return serving::PrepareScoreRolling(decoded, served);
}

std::string FieldOf(const absl::Status& status) {
  const auto detail = engine::GetFieldErrorDetail(status);
  return detail.has_value() ? FieldPath(detail->field) : "";
}

std::string ReasonOf(const absl::Status& status) {
  return engine::GetFieldErrorDetail(status).value_or(engine::FieldErrorDetail()).reason;
}

}  // namespace structattn::rpc
