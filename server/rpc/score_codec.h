// Score and ScoreRolling: from the wire to the engine and back, with every check that they need.
// Called by server/rpc/inference_service. Errors are FieldErrors whose paths are those of the
// request, relative to the Prompt inside a prompt. Runs no model.
#ifndef STRUCTATTN_SERVER_RPC_SCORE_CODEC_H_
#define STRUCTATTN_SERVER_RPC_SCORE_CODEC_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/prompt/continuation_tokens.h"
#include "server/engine/served_model.h"
#include "server/engine/task/score_request.h"
#include "server/rpc/request_codec.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn {

// What the engine is asked, and the reply with everything that is known beforehand: token ids,
// places, provenance.
struct DecodedScore {
  engine::ScoreRequest request;
  v1::ScoreResponse reply;
  std::vector<engine::EncodedContinuations::Place> places;  // Of the reply's scores in the request.
};
absl::StatusOr<DecodedScore> DecodeScoreRequest(const v1::ScoreRequest& request,
                                                const engine::ServedModel& served,
                                                const RequestLimits& limits);
// Completes the reply. `places`: DecodedScore's.
void FillScores(const engine::ScoreEvent& event,
                std::span<const engine::EncodedContinuations::Place> places,
                v1::ScoreResponse* reply);

struct DecodedRolling {
  engine::ScoreRequest request;
  v1::ScoreRollingResponse reply;
};
absl::StatusOr<DecodedRolling> DecodeScoreRollingRequest(const v1::ScoreRollingRequest& request,
                                                         const engine::ServedModel& served,
                                                         const RequestLimits& limits);
void FillScores(const engine::ScoreEvent& event, v1::ScoreRollingResponse* reply);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_SCORE_CODEC_H_
