// From requests of structattn.v1 to the server's own: enums, oneofs, presence and what must be
// bounded before anything is copied. Every other check is server/serving's. It tokenizes nothing.
//
// Each function fills `decoded` as far as it gets, its header always, so that an error can be
// logged as the request's. Errors are FieldErrors at logical paths (field_paths.h).
#ifndef STRUCTATTN_SERVER_RPC_V1_REQUEST_CODEC_H_
#define STRUCTATTN_SERVER_RPC_V1_REQUEST_CODEC_H_

#include "absl/status/status.h"
#include "server/serving/limits.h"
#include "server/serving/requests.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

absl::Status DecodeGenerateRequest(const v1::GenerateRequest& request,
                                   const serving::Limits& limits,
                                   serving::GenerateRequest* decoded);

absl::Status DecodeScoreRequest(const v1::ScoreRequest& request, const serving::Limits& limits,
                                serving::ScoreRequest* decoded);

absl::Status DecodeScoreRollingRequest(const v1::ScoreRollingRequest& request,
                                       serving::ScoreRollingRequest* decoded);

absl::Status DecodeInspectRequest(const v1::InspectRequest& request, const serving::Limits& limits,
                                  serving::InspectRequest* decoded);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_REQUEST_CODEC_H_
