// A Prompt of structattn.v1 as the engine's typed segments: enums and oneofs, nothing else.
#ifndef STRUCTATTN_SERVER_RPC_V1_PROMPT_CODEC_H_
#define STRUCTATTN_SERVER_RPC_V1_PROMPT_CODEC_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/prompt/prompt.h"
#include "server/serving/limits.h"
#include "structattn/v1/types.pb.h"

namespace structattn::rpc {

absl::StatusOr<engine::Prompt> DecodePrompt(const v1::Prompt& prompt,
                                            const serving::Limits& limits);

// The error of a value that is no name of its enum.
absl::Status UnknownEnum(std::string_view field, int value, std::string_view allowed);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_PROMPT_CODEC_H_
