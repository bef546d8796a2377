// The mixture of experts in config.json, as transformers' Qwen2-MoE and Qwen3-MoE read it. It
// knows no tensor.
#ifndef STRUCTATTN_SERVER_MODEL_HF_MIXTURE_H_
#define STRUCTATTN_SERVER_MODEL_HF_MIXTURE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"

namespace structattn {

// What a family's configuration class assumes for a key that is missing.
struct MixtureDefaults {
  int64_t experts = 0;
  int64_t chosen = 0;
  int64_t expert_size = 0;
  int64_t shared_expert_size = 0;  // 0: the family has no shared expert, and its key is ignored.
};

// Needs config.layers. A config whose layers are all plain has no mixture.
absl::Status ReadHfMixture(const Fields& fields, const MixtureDefaults& defaults,
                           ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_HF_MIXTURE_H_
