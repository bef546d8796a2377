// What the engine is asked for a message of structattn.v1: decoded by the codec, then checked and
// tokenized as the FrontDoor has it done, on the test's own thread.
#ifndef STRUCTATTN_TESTS_SERVER_RPC_V1_PREPARED_H_
#define STRUCTATTN_TESTS_SERVER_RPC_V1_PREPARED_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/engine/served_model.h"
#include "server/serving/prepare_generate.h"
#include "server/serving/prepare_score.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

absl::StatusOr<engine::GenerateRequest> Prepared(const v1::GenerateRequest& request,
                                                 const Model& model);
absl::StatusOr<serving::PreparedScore> PreparedScoreOf(const v1::ScoreRequest& request,
                                                       const engine::ServedModel& served);
absl::StatusOr<serving::PreparedScore> PreparedScoreOf(const v1::ScoreRollingRequest& request,
                                                       const engine::ServedModel& served);

// The field of structattn.v1 and the reason that an error names; empty where it names none.
std::string FieldOf(const absl::Status& status);
std::string ReasonOf(const absl::Status& status);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_TESTS_SERVER_RPC_V1_PREPARED_H_
