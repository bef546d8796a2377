// From requests on the wire to engine types, with every check that a request needs.
// Called by server/rpc's services; the prompt's own rules are checked by
// server/engine/prompt/prompt. Errors are FieldErrors whose paths are those of the request
// (sampling.temperature), relative to the Prompt inside a prompt (segments[3].paraphrase_index).
// Runs no model.
#ifndef STRUCTATTN_SERVER_RPC_REQUEST_CODEC_H_
#define STRUCTATTN_SERVER_RPC_REQUEST_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/prompt/prompt.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/generate_request.h"
#include "server/model/model.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn {

// What the operator allows, beyond what the model can.
struct RequestLimits {
  int64_t max_prompt_bytes = int64_t{1} << 20;  // Text over all segments.
  int32_t max_segments = 4096;
  // Of one GenerateBatch stream, which remembers their ids.
  size_t max_requests_per_stream = size_t{1} << 20;
};

inline constexpr size_t kMaxRequestIdBytes = 256;

// Enums and oneofs only; EncodePrompt checks the rest.
absl::StatusOr<engine::Prompt> DecodePrompt(const v1::Prompt& prompt);

// Draws a seed when temperature > 0 and the client names none.
absl::StatusOr<engine::SamplingParams> DecodeSampling(const v1::Sampling& sampling,
                                                      int64_t vocabulary_size);

absl::StatusOr<engine::StoppingParams> DecodeStopping(const v1::Stopping& stopping,
                                                      const ModelConfig& config);

// The whole request, prompt encoded. `request.deadline` follows from timeout_ms alone.
absl::StatusOr<engine::GenerateRequest> DecodeGenerateRequest(const v1::GenerateRequest& request,
                                                              const Model& model,
                                                              const RequestLimits& limits);

// For the dry run.
absl::StatusOr<engine::EncodedPrompt> DecodeInspectRequest(const v1::InspectRequest& request,
                                                           const Model& model,
                                                           const RequestLimits& limits);

// [A-Za-z0-9._-]{1,64}: names of models.
bool IsModelName(std::string_view name);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_REQUEST_CODEC_H_
