// The cosines and sines by which the rows of a step are rotated.
#ifndef STRUCTATTN_SERVER_MODEL_ROTARY_ANGLES_H_
#define STRUCTATTN_SERVER_MODEL_ROTARY_ANGLES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/model/rope_scaling.h"

namespace structattn {

class RotaryAngles {
 public:
  // Heads of head_dim dims that lie in heads of `padded_head_dim`, whose further dims never turn.
  RotaryAngles(const RopeConfig& rope, int64_t head_dim, int64_t padded_head_dim);

  // The angles of a row, which are padded_head_dim / 2.
  int64_t half() const { return half_; }

  // Computes those of tokens at these positions. `lengths` are the positions that the prompts of
  // their sequences have, or empty where none is beyond DynamicRopeLength.
  void Compute(std::span<const int32_t> positions, std::span<const int32_t> lengths);

  // [rows, half]
  std::span<const float> cosine() const { return cosine_; }
  std::span<const float> sine() const { return sine_; }

 private:
  void SetLength(int32_t length);

  const RopeConfig rope_;
  const int64_t head_dim_;
  const int64_t half_;
  const float attention_factor_;
  int32_t length_ = 0;  // The frequencies are those of this length.
  std::vector<float> inverse_frequencies_;
  std::vector<float> cosine_;
  std::vector<float> sine_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_ROTARY_ANGLES_H_
