// From what a caller asks to generate, which generate_checks has checked, to what the engine runs:
// its prompt as tokens. It is costly (it tokenizes) and pure: it runs no model and knows no call.
#ifndef STRUCTATTN_SERVER_SERVING_PREPARE_GENERATE_H_
#define STRUCTATTN_SERVER_SERVING_PREPARE_GENERATE_H_

#include <stop_token>

#include "absl/status/statusor.h"
#include "server/engine/prompt/prompt.h"
#include "server/engine/task/generate_request.h"
#include "server/model/model.h"
#include "server/serving/limits.h"
#include "server/serving/requests.h"

namespace structattn::serving {

// What a prompt may be for this model and these limits.
engine::PromptLimits PromptLimitsFor(const Model& model, const Limits& limits);

// `request` has passed CheckGenerate. Draws a seed where sampling needs one and the caller names
// none. `arrival` and `deadline` are left at their defaults. When a stop is requested, tokenizing
// ends early and the result, an error or not, means nothing.
absl::StatusOr<engine::GenerateRequest> PrepareGenerate(const GenerateRequest& request,
                                                        const Model& model, const Limits& limits,
                                                        const std::stop_token& stop = {});

// The prompt of a dry run, which has passed engine::CheckPrompt.
absl::StatusOr<engine::EncodedPrompt> PrepareInspect(const InspectRequest& request,
                                                     const Model& model, const Limits& limits,
                                                     const std::stop_token& stop = {});

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_PREPARE_GENERATE_H_
