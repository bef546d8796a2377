// The ranges of sampling, stopping and fusion: what spec and limits allow, for any protocol.
// It changes nothing of a request.
#ifndef STRUCTATTN_SERVER_SERVING_SAMPLING_CHECKS_H_
#define STRUCTATTN_SERVER_SERVING_SAMPLING_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/serving/requests.h"

namespace structattn::serving {

absl::Status CheckSampling(const engine::SamplingParams& sampling, int64_t vocabulary_size);

absl::Status CheckStopping(const engine::StoppingParams& stopping, int64_t vocabulary_size);

// How many continuations the request asks for, and in which groups.
absl::Status CheckContinuations(const GenerateRequest& request);

// Everything of the fusion that does not depend on how many members there are.
absl::Status CheckFusion(const GenerateRequest& request);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_SAMPLING_CHECKS_H_
