// The rotary embedding in config.json, in every spelling that transformers reads.
#ifndef STRUCTATTN_SERVER_MODEL_HF_ROPE_H_
#define STRUCTATTN_SERVER_MODEL_HF_ROPE_H_

#include "absl/status/status.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"

namespace structattn {

// Fills in config.rope, and stretches config.context_length, which max_position_embeddings has
// given, as far as the rope's scaling does. Types that are not supported are refused by name.
absl::Status ReadHfRope(const Fields& fields, ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_HF_ROPE_H_
