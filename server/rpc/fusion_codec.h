// What a Generate request says of fusion, checked and in engine types. Called by request_codec.
// Errors are FieldErrors below "fusion", or at a field that does not go with it.
#ifndef STRUCTATTN_SERVER_RPC_FUSION_CODEC_H_
#define STRUCTATTN_SERVER_RPC_FUSION_CODEC_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/task/generate_request.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn {

// Of a request with fusion: what can be said before the prompt is encoded.
absl::Status CheckFusion(const v1::GenerateRequest& request);

// Whether the members are the paraphrases' per-paraphrase prompts, of a request that passed
// CheckFusion.
bool FusesPerParaphrasePrompts(const v1::GenerateRequest& request);

// Of a fusion that passed CheckFusion, over so many members.
absl::StatusOr<engine::Fusion> DecodeFusion(const v1::Fusion& fusion, size_t members);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_FUSION_CODEC_H_
