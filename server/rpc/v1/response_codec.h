// From the server's own answers to messages of structattn.v1. It checks nothing and waits for
// nothing.
#ifndef STRUCTATTN_SERVER_RPC_V1_RESPONSE_CODEC_H_
#define STRUCTATTN_SERVER_RPC_V1_RESPONSE_CODEC_H_

#include "server/engine/prompt/prompt.h"
#include "server/engine/served_model.h"
#include "server/engine/task/generate_events.h"
#include "server/serving/generate_call.h"
#include "server/serving/prepare_score.h"
#include "structattn/v1/inference_service.pb.h"
#include "structattn/v1/model_service.pb.h"

namespace structattn::rpc {

v1::Started EncodeStarted(const serving::Started& started);

// Keeps one message, with 20 alternatives per token, far below the 4 MiB that clients accept.
inline constexpr int kMaxTokensPerChunk = 1024;

// Adds the event to the end of `chunk`, so that one chunk may carry several of one continuation.
void AppendToken(const engine::TokenEvent& event, v1::Chunk* chunk);

v1::Finished EncodeFinished(const engine::FinishEvent& event);

v1::ScoreResponse EncodeScores(const serving::ScoreAnswer& answer);
v1::ScoreRollingResponse EncodeRollingScores(const serving::ScoreAnswer& answer);

v1::InspectResponse EncodeInspect(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer);

v1::Model EncodeModel(const engine::ServedModel& served);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_RESPONSE_CODEC_H_
