// See hf_rope.h. Version 5 of transformers writes rope_parameters, older ones rope_theta and
// rope_scaling; rope_scaling wins where both are there, and what stands inside wins over what
// stands outside.
#include "server/model/hf_rope.h"

#include <initializer_list>
#include <string>
#include <string_view>

#include "server/model/refusal.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// The object that describes the rope, with the fields of config.json around it.
struct RopeFields {
  Fields inside;
  Fields outside;
  double max_position_embeddings;
};

absl::Status Require(std::string_view type, const Fields& fields,
                     std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (fields.Find(key) == nullptr) return Refuse("rope_type ", type, " without ", key);
  }
  return absl::OkStatus();
}

// Outside wins here, unlike for the other keys; without one the model was trained for its whole
// context.
absl::Status ReadTrainedLength(const RopeFields& fields, double& length) {
  length = fields.max_position_embeddings;
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("original_max_position_embeddings", length));
  return fields.outside.Read("original_max_position_embeddings", length);
}

absl::Status ReadScaling(const RopeFields& fields, LinearRopeScaling& scaling) {
  STRUCTATTN_RETURN_IF_ERROR(Require("linear", fields.inside, {"factor"}));
  return fields.inside.Read("factor", scaling.factor);
}

// What was trained is max_position_embeddings, whatever else the file says.
absl::Status ReadScaling(const RopeFields& fields, DynamicRopeScaling& scaling) {
  STRUCTATTN_RETURN_IF_ERROR(Require("dynamic", fields.inside, {"factor"}));
  scaling.original_max_position_embeddings = fields.max_position_embeddings;
  return fields.inside.Read("factor", scaling.factor);
}

absl::Status ReadScaling(const RopeFields& fields, YarnRopeScaling& scaling) {
  STRUCTATTN_RETURN_IF_ERROR(ReadTrainedLength(fields, scaling.original_max_position_embeddings));
  scaling.factor = fields.max_position_embeddings / scaling.original_max_position_embeddings;
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("factor", scaling.factor));
  double mscale = 0;
  double mscale_all_dim = 0;
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("mscale", mscale));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("mscale_all_dim", mscale_all_dim));
  scaling.attention_factor = YarnAttentionFactor(scaling.factor, mscale, mscale_all_dim);
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("attention_factor", scaling.attention_factor));
  double beta_fast = 0;  // Here 0 means the default, too.
  double beta_slow = 0;
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("beta_fast", beta_fast));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("beta_slow", beta_slow));
  if (beta_fast != 0) scaling.beta_fast = beta_fast;
  if (beta_slow != 0) scaling.beta_slow = beta_slow;
  return fields.inside.Read("truncate", scaling.truncate);
}

absl::Status ReadScaling(const RopeFields& fields, Llama3RopeScaling& scaling) {
  STRUCTATTN_RETURN_IF_ERROR(
      Require("llama3", fields.inside, {"factor", "low_freq_factor", "high_freq_factor"}));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("factor", scaling.factor));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("low_freq_factor", scaling.low_freq_factor));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("high_freq_factor", scaling.high_freq_factor));
  return ReadTrainedLength(fields, scaling.original_max_position_embeddings);
}

template <typename Scaling>
absl::Status ReadScalingInto(const RopeFields& fields, RopeScaling& target) {
  Scaling scaling{};
  STRUCTATTN_RETURN_IF_ERROR(ReadScaling(fields, scaling));
  target = scaling;
  return absl::OkStatus();
}

absl::Status ReadScaling(const RopeFields& fields, RopeScaling& scaling) {
  std::string type = "default";
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("type", type));
  STRUCTATTN_RETURN_IF_ERROR(fields.inside.Read("rope_type", type));
  if (type == "default") return absl::OkStatus();
  if (type == "linear") return ReadScalingInto<LinearRopeScaling>(fields, scaling);
  if (type == "dynamic") return ReadScalingInto<DynamicRopeScaling>(fields, scaling);
  if (type == "yarn") return ReadScalingInto<YarnRopeScaling>(fields, scaling);
  if (type == "llama3") return ReadScalingInto<Llama3RopeScaling>(fields, scaling);
  return Refuse("rope_type ", Quoted(type),
                ": supported are default, linear, dynamic, yarn, llama3");
}

}  // namespace

absl::Status ReadHfRope(const Fields& fields, ModelConfig& config) {
  static const Json kNone = Json::object();
  const Json* chosen = &kNone;
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const Json* value = fields.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) return Fields::WrongKind(key, *value, "an object");
    if (!value->empty()) chosen = value;
  }
  for (const auto& [key, value] : chosen->items()) {
    if (value.is_object()) return Refuse("rope parameters per layer type (", Quoted(key), ")");
  }
  const Fields inside(*chosen);
  config.rope.theta = 10000.0;
  double rotated_share = 1.0;
  for (const Fields& place : {fields, inside}) {
    STRUCTATTN_RETURN_IF_ERROR(place.Read("rope_theta", config.rope.theta));
    STRUCTATTN_RETURN_IF_ERROR(place.Read("partial_rotary_factor", rotated_share));
  }
  if (rotated_share != 1.0) {
    return Refuse("partial_rotary_factor ", rotated_share, ": supported is 1");
  }
  STRUCTATTN_RETURN_IF_ERROR(
      ReadScaling({.inside = inside,
                   .outside = fields,
                   .max_position_embeddings = static_cast<double>(config.context_length)},
                  config.rope.scaling));
  STRUCTATTN_RETURN_IF_ERROR(ValidateRope(config.rope, config.head_dim));
  config.context_length = StretchedContext(config.rope.scaling, config.context_length);
  return absl::OkStatus();
}

}  // namespace structattn
