// See rotary_angles.h.
#include "server/model/rotary_angles.h"

#include <cmath>
#include <cstddef>

#include "kernels/check.h"

namespace structattn {

RotaryAngles::RotaryAngles(const RopeConfig& rope, int64_t head_dim, int64_t padded_head_dim)
    : rope_(rope),
      head_dim_(head_dim),
      half_(padded_head_dim / 2),
      attention_factor_(RopeAttentionFactor(rope.scaling)) {
  SetLength(0);
}

void RotaryAngles::SetLength(int32_t length) {
  length_ = length;
  inverse_frequencies_ = InverseFrequencies(rope_, head_dim_, length);
  inverse_frequencies_.resize(static_cast<size_t>(half_), 0.0f);
}

void RotaryAngles::Compute(std::span<const int32_t> positions, std::span<const int32_t> lengths) {
  STRUCTATTN_CHECK(lengths.empty() || lengths.size() == positions.size());
  const auto half = static_cast<size_t>(half_);
  cosine_.resize(positions.size() * half);
  sine_.resize(positions.size() * half);
  for (size_t t = 0; t < positions.size(); ++t) {
    const int32_t length = lengths.empty() ? 0 : lengths[t];
    if (length != length_) SetLength(length);
    const float position = static_cast<float>(positions[t]);
    for (size_t i = 0; i < half; ++i) {
      const float angle = position * inverse_frequencies_[i];
      cosine_[t * half + i] = std::cos(angle) * attention_factor_;
      sine_[t * half + i] = std::sin(angle) * attention_factor_;
    }
  }
}

}  // namespace structattn
