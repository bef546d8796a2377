// The ways in which a checkpoint stretches its rotary embedding, and the frequencies that follow
// (transformers' modeling_rope_utils.py). It reads no file.
#ifndef STRUCTATTN_SERVER_MODEL_ROPE_SCALING_H_
#define STRUCTATTN_SERVER_MODEL_ROPE_SCALING_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace structattn {

// Frequencies as they come from theta.
struct DefaultRope {};

// All frequencies are divided by the factor.
struct LinearRopeScaling {
  double factor;
};

// NTK: theta grows with the sequence's length, from the trained length on.
struct DynamicRopeScaling {
  double factor;
  double original_max_position_embeddings;
};

// Fast dims stay, slow dims are divided by the factor, those between are blended. beta_fast and
// beta_slow are the numbers of turns over the trained length where the blend begins and ends.
struct YarnRopeScaling {
  double factor;
  double original_max_position_embeddings;
  double attention_factor = 1.0;  // Multiplies cosines and sines.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;  // Round the blend's bounds to whole dims, outwards.
};

// As yarn, with a blend over wavelengths.
struct Llama3RopeScaling {
  double factor;
  double low_freq_factor;
  double high_freq_factor;
  double original_max_position_embeddings;
};

using RopeScaling = std::variant<DefaultRope, LinearRopeScaling, DynamicRopeScaling,
                                 YarnRopeScaling, Llama3RopeScaling>;

// The rotary embedding of one model.
struct RopeConfig {
  double theta = 0.0;
  RopeScaling scaling;
  // Divisors of the inverse frequencies, head_dim / 2 of them, or empty: how a GGUF file stores
  // what config.json calls llama3 scaling.
  std::vector<float> frequency_divisors;
};

// Whether every number is in range for heads of so many dims. Messages have the names of
// config.json.
absl::Status ValidateRope(const RopeConfig& rope, int64_t head_dim);

// The attention factor that yarn means where none is given: `mscale` over `mscale_all_dim`, or
// that of the factor alone where one of both is 0.
double YarnAttentionFactor(double factor, double mscale, double mscale_all_dim);

// The context length of a model that states `max_position_embeddings`: the scalings that stretch
// what was trained stretch it, too.
int64_t StretchedContext(const RopeScaling& scaling, int64_t max_position_embeddings);

// The length from which on the frequencies depend on a sequence's length; INT32_MAX: never.
int32_t DynamicRopeLength(const RopeScaling& scaling);

// Inverse frequencies, head_dim / 2 of them, for a sequence whose prompt has `length` positions (it
// matters beyond DynamicRopeLength alone), in the float arithmetic of Hugging Face. The power is
// rounded correctly; that of LibTorch may be one unit in the last place away, which depends on the
// CPU.
std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim, int32_t length = 0);

// What cosines and sines are multiplied by.
float RopeAttentionFactor(const RopeScaling& scaling);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_ROPE_SCALING_H_
