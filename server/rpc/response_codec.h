// From engine types to messages on the wire.
// Called by server/rpc's services. Checks nothing, waits for nothing.
#ifndef STRUCTATTN_SERVER_RPC_RESPONSE_CODEC_H_
#define STRUCTATTN_SERVER_RPC_RESPONSE_CODEC_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "server/engine/sampling/sampling_params.h"
#include "server/engine/served_model.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "structattn/v1/inference_service.pb.h"
#include "structattn/v1/model_service.pb.h"

namespace structattn {

// `echo`: token ids, groups and positions of the prompt as well.
v1::Started EncodeStarted(const engine::ServedModel& served, const engine::GenerateRequest& request,
                          bool echo);

// Keeps one message, with 20 alternatives per token, far below the 4 MiB that clients accept.
inline constexpr int kMaxTokensPerChunk = 1024;

v1::Provenance EncodeProvenance(const engine::ServedModel& served, const Structure& structure,
                                uint64_t seed);

v1::TopLogprobs EncodeTopLogprobs(std::span<const engine::TokenLogprob> alternatives);

// Adds the event to the end of `chunk`, so that one chunk may carry several of one continuation.
void AppendToken(const engine::TokenEvent& event, v1::Chunk* chunk);

v1::Finished EncodeFinished(const engine::FinishEvent& event);

v1::InspectResponse EncodeInspect(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer);

v1::Model EncodeModel(const engine::ServedModel& served);

// FinishReason as results and logs spell it: "stop", "stop_token", ...
std::string_view FinishReasonName(engine::FinishReason reason);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_RESPONSE_CODEC_H_
