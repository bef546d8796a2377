// See rope_scaling.h.
#include "server/model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <span>
#include <string_view>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr double kPi = std::numbers::pi;

// Also refuses NaN.
absl::Status CheckRange(std::string_view name, double value, double smallest, double largest) {
  if (value >= smallest && value <= largest) return absl::OkStatus();
  return Refuse(name, " ", value, ": allowed are ", smallest, " to ", largest);
}

absl::Status CheckFactor(double factor) { return CheckRange("rope factor", factor, 1.0, 1e6); }

absl::Status CheckTrainedLength(double length) {
  return CheckRange("original_max_position_embeddings", length, 1.0, 0x1p27);
}

absl::Status Check(const DefaultRope&, int64_t) { return absl::OkStatus(); }

absl::Status Check(const LinearRopeScaling& scaling, int64_t) {
  return CheckFactor(scaling.factor);
}

absl::Status Check(const DynamicRopeScaling& scaling, int64_t head_dim) {
  STRUCTATTN_RETURN_IF_ERROR(CheckFactor(scaling.factor));
  STRUCTATTN_RETURN_IF_ERROR(CheckTrainedLength(scaling.original_max_position_embeddings));
  if (head_dim > 2) return absl::OkStatus();
  return Refuse("rope_type 'dynamic' with head_dim ", head_dim, ": it divides by head_dim - 2");
}

absl::Status Check(const YarnRopeScaling& scaling, int64_t) {
  STRUCTATTN_RETURN_IF_ERROR(CheckFactor(scaling.factor));
  STRUCTATTN_RETURN_IF_ERROR(CheckTrainedLength(scaling.original_max_position_embeddings));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("attention_factor", scaling.attention_factor, 1e-3, 1e3));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("beta_fast", scaling.beta_fast, 1e-6, 1e6));
  return CheckRange("beta_slow", scaling.beta_slow, 1e-6, 1e6);
}

absl::Status Check(const Llama3RopeScaling& scaling, int64_t) {
  STRUCTATTN_RETURN_IF_ERROR(CheckFactor(scaling.factor));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("low_freq_factor", scaling.low_freq_factor, 1e-6, 1e6));
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("high_freq_factor", scaling.high_freq_factor, 1e-6, 1e6));
  if (scaling.low_freq_factor >= scaling.high_freq_factor) {
    return Refuse("low_freq_factor ", scaling.low_freq_factor, ": must be below high_freq_factor ",
                  scaling.high_freq_factor);
  }
  return CheckTrainedLength(scaling.original_max_position_embeddings);
}

// theta^(-2 i / head_dim).
std::vector<float> PlainFrequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return frequencies;
}

// The Scale functions turn the plain frequencies of `rope` into those of its scaling.

void Scale(const DefaultRope&, const RopeConfig&, std::span<float>) {}

// Theta has grown already (ThetaOf).
void Scale(const DynamicRopeScaling&, const RopeConfig&, std::span<float>) {}

// Source: _compute_linear_scaling_rope_parameters.
void Scale(const LinearRopeScaling& scaling, const RopeConfig&, std::span<float> frequencies) {
  for (float& frequency : frequencies) frequency /= static_cast<float>(scaling.factor);
}

// Source: _compute_yarn_parameters.
void Scale(const YarnRopeScaling& scaling, const RopeConfig& rope, std::span<float> frequencies) {
  const auto dims = static_cast<double>(2 * frequencies.size());
  const auto bound = [&](double turns) {
    return dims * std::log(scaling.original_max_position_embeddings / (turns * 2 * kPi)) /
           (2 * std::log(rope.theta));
  };
  double low = bound(scaling.beta_fast);
  double high = bound(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    const float divided = 1.0f / (static_cast<float>(scaling.factor) * (1.0f / frequencies[i]));
    frequencies[i] = divided * (1.0f - kept) + frequencies[i] * kept;
  }
}

// Source: _compute_llama3_parameters. There a scalar over a tensor is the reciprocal times the
// scalar, and the scalar is rounded to float first.
float ScaleOne(const Llama3RopeScaling& scaling, float frequency) {
  const double context = scaling.original_max_position_embeddings;
  const auto longest = static_cast<float>(context / scaling.low_freq_factor);
  const auto shortest = static_cast<float>(context / scaling.high_freq_factor);
  const auto factor = static_cast<float>(scaling.factor);
  const auto span = static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  const float wavelength = (1.0f / frequency) * static_cast<float>(2 * kPi);
  if (wavelength < shortest) return frequency;
  if (wavelength > longest) return frequency / factor;
  const float smooth = ((1.0f / wavelength) * static_cast<float>(context) -
                        static_cast<float>(scaling.low_freq_factor)) /
                       span;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

void Scale(const Llama3RopeScaling& scaling, const RopeConfig&, std::span<float> frequencies) {
  for (float& frequency : frequencies) frequency = ScaleOne(scaling, frequency);
}

// Source of the dynamic growth: _compute_dynamic_ntk_parameters, where a length that is a tensor
// makes everything float.
double ThetaOf(const RopeConfig& rope, int64_t head_dim, int32_t length) {
  const auto* scaling = std::get_if<DynamicRopeScaling>(&rope.scaling);
  const auto theta = static_cast<float>(rope.theta);
  if (scaling == nullptr || length <= scaling->original_max_position_embeddings) return theta;
  const float stretched = static_cast<float>(scaling->factor) * static_cast<float>(length) /
                          static_cast<float>(scaling->original_max_position_embeddings);
  const float growth = stretched - static_cast<float>(scaling->factor - 1);
  const auto exponent =
      static_cast<float>(static_cast<double>(head_dim) / static_cast<double>(head_dim - 2));
  return theta * static_cast<float>(std::pow(static_cast<double>(growth), exponent));
}

}  // namespace

absl::Status ValidateRope(const RopeConfig& rope, int64_t head_dim) {
  STRUCTATTN_RETURN_IF_ERROR(CheckRange("rope_theta", rope.theta, 1.0, 1e12));
  const auto half = static_cast<size_t>(head_dim / 2);
  if (!rope.frequency_divisors.empty() && rope.frequency_divisors.size() != half) {
    return Refuse(rope.frequency_divisors.size(), " rope frequency factors, head_dim ", head_dim,
                  " needs ", half);
  }
  for (const float divisor : rope.frequency_divisors) {
    STRUCTATTN_RETURN_IF_ERROR(CheckRange("rope frequency factor", divisor, 1e-6, 1e6));
  }
  if (std::holds_alternative<YarnRopeScaling>(rope.scaling) && rope.theta == 1.0) {
    return Refuse("rope_theta 1: yarn needs one above 1");
  }
  return std::visit([head_dim](const auto& scaling) { return Check(scaling, head_dim); },
                    rope.scaling);
}

double YarnAttentionFactor(double factor, double mscale, double mscale_all_dim) {
  const auto scale_of = [factor](double weight) {
    return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
  };
  if (mscale == 0 || mscale_all_dim == 0) return scale_of(1);
  return scale_of(mscale) / scale_of(mscale_all_dim);
}

int64_t StretchedContext(const RopeScaling& scaling, int64_t max_position_embeddings) {
  const auto stated = static_cast<double>(max_position_embeddings);
  double context = stated;
  if (const auto* linear = std::get_if<LinearRopeScaling>(&scaling)) {
    context = stated * linear->factor;
  } else if (const auto* dynamic = std::get_if<DynamicRopeScaling>(&scaling)) {
    context = stated * dynamic->factor;
  } else if (const auto* yarn = std::get_if<YarnRopeScaling>(&scaling)) {
    context = std::max(stated, yarn->factor * yarn->original_max_position_embeddings);
  }
  constexpr double kLongest = 0x1p27;
  return context > stated ? static_cast<int64_t>(std::min(context, kLongest))
                          : max_position_embeddings;
}

int32_t DynamicRopeLength(const RopeScaling& scaling) {
  const auto* dynamic = std::get_if<DynamicRopeScaling>(&scaling);
  if (dynamic == nullptr) return std::numeric_limits<int32_t>::max();
  return static_cast<int32_t>(dynamic->original_max_position_embeddings);
}

std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim, int32_t length) {
  std::vector<float> frequencies = PlainFrequencies(ThetaOf(rope, head_dim, length), head_dim);
  std::visit([&](const auto& scaling) { Scale(scaling, rope, frequencies); }, rope.scaling);
  for (size_t i = 0; i < rope.frequency_divisors.size(); ++i) {
    frequencies[i] /= rope.frequency_divisors[i];
  }
  return frequencies;
}

float RopeAttentionFactor(const RopeScaling& scaling) {
  const auto* yarn = std::get_if<YarnRopeScaling>(&scaling);
  return yarn == nullptr ? 1.0f : static_cast<float>(yarn->attention_factor);
}

}  // namespace structattn
