// See fusion_codec.h.
#include "server/rpc/fusion_codec.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/rpc/request_checks.h"

namespace structattn {
namespace {

constexpr int kMaxMembers = 63;
constexpr int32_t kDefaultSamples = 8;
constexpr int32_t kMaxSamples = 64;
constexpr size_t kMaxContinuations = 256;
constexpr float kMaxTemperature = 100.0f;

bool IsWeighted(v1::FusionMethod method) {
  return method == v1::FUSION_METHOD_WEIGHTED_AVG || method == v1::FUSION_METHOD_WEIGHTED_MAX;
}

absl::Status CheckSource(const v1::GenerateRequest& request) {
  switch (request.fusion().source()) {
    case v1::FUSION_SOURCE_UNSPECIFIED:
    case v1::FUSION_SOURCE_PER_PARAPHRASE_PROMPTS:
      if (request.branches().empty()) return absl::OkStatus();
      return engine::InvalidField(
          "branches", "FUSION_SOURCE_MISMATCH",
          absl::StrCat(request.branches_size(),
                       " branches given, but fusion.source says PER_PARAPHRASE_PROMPTS; "
                       "branches need BRANCHES"));
    case v1::FUSION_SOURCE_BRANCHES:
      if (request.branches().empty()) {
        return engine::InvalidField(
            "branches", "FUSION_SOURCE_MISMATCH",
            "empty, but fusion.source says BRANCHES; at least one is needed");
      }
      return CheckCount("branches", request.branches_size(), kMaxMembers);
    default:
      return engine::InvalidField("fusion.source", "UNKNOWN_ENUM_VALUE",
                                  absl::StrCat(static_cast<int>(request.fusion().source()),
                                               " is none of PER_PARAPHRASE_PROMPTS, BRANCHES"));
  }
}

absl::Status CheckConfidence(const v1::Confidence& confidence) {
  if (confidence.has_samples() &&
      (confidence.samples() < 1 || confidence.samples() > kMaxSamples)) {
    return engine::InvalidField("fusion.confidence.samples", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(confidence.samples(), " is not in 1..", kMaxSamples));
  }
  if (!confidence.has_temperature()) return absl::OkStatus();
  return CheckRange("fusion.confidence.temperature", confidence.temperature(),
                    {0.0f, kMaxTemperature, /*low_allowed=*/false});
}

// Who weighs: nobody, the client or confidence.
absl::Status CheckWeighing(const v1::Fusion& fusion) {
  const bool has_weights = !fusion.weights().empty();
  if (!IsWeighted(fusion.method())) {
    if (!has_weights && !fusion.has_confidence()) return absl::OkStatus();
    return engine::InvalidField(has_weights ? "fusion.weights" : "fusion.confidence",
                                "WEIGHTS_NOT_ALLOWED",
                                "given, but only WEIGHTED_AVG and WEIGHTED_MAX have weights");
  }
  if (has_weights && fusion.has_confidence()) {
    return engine::InvalidField("fusion.confidence", "WEIGHTS_GIVEN_TWICE",
                                "given beside fusion.weights; one of the two is needed");
  }
  if (has_weights || fusion.has_confidence()) return absl::OkStatus();
  return engine::InvalidField("fusion.weights", "WEIGHTS_MISSING",
                              "empty; WEIGHTED_AVG and WEIGHTED_MAX need one for each member, or "
                              "fusion.confidence");
}

absl::StatusOr<std::vector<double>> DecodeWeights(const v1::Fusion& fusion, size_t members) {
  const size_t count = fusion.weights_size();
  if (count != members) {
    return engine::InvalidField(
        "fusion.weights", "WEIGHTS_MISMATCH",
        absl::StrCat(count, " weights for ", members, " members; one for each is needed"));
  }
  double largest = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double weight = fusion.weights(static_cast<int>(i));
    if (!std::isfinite(weight) || weight < 0.0) {
      return engine::InvalidField(absl::StrCat("fusion.weights[", i, "]"), "VALUE_OUT_OF_RANGE",
                                  absl::StrCat(weight, " is not a finite number of 0 or more"));
    }
    largest = std::max(largest, weight);
  }
  if (largest == 0.0) {
    return engine::InvalidField("fusion.weights", "WEIGHTS_ALL_ZERO",
                                "all are 0; at least one must be more");
  }
  // First by the largest, so that no sum overflows.
  std::vector<double> weights(fusion.weights().begin(), fusion.weights().end());
  double sum = 0.0;
  for (double& weight : weights) sum += weight /= largest;
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

bool FusesPerParaphrasePrompts(const v1::GenerateRequest& request) {
  return request.has_fusion() && request.fusion().source() != v1::FUSION_SOURCE_BRANCHES;
}

absl::Status CheckFusion(const v1::GenerateRequest& request) {
  const v1::Fusion& fusion = request.fusion();
  if (fusion.method() < v1::FUSION_METHOD_AVG || fusion.method() > v1::FUSION_METHOD_WEIGHTED_MAX) {
    return engine::InvalidField("fusion.method", "UNKNOWN_ENUM_VALUE",
                                absl::StrCat(static_cast<int>(fusion.method()),
                                             " is none of AVG, MAX, WEIGHTED_AVG, WEIGHTED_MAX"));
  }
  const bool several = request.n() > 1 || request.best_of() > 1;
  if (several) {
    return engine::InvalidField(request.n() > 1 ? "n" : "best_of", "FUSION_OF_SAMPLES",
                                "more than 1, but fusion gives one answer");
  }
  if (request.generated_group() != 0) {
    return engine::InvalidField(
        "generated_group", "GROUP_GIVEN_TWICE",
        absl::StrCat(request.generated_group(),
                     " given beside fusion, whose members have their groups"));
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckSource(request));
  STRUCTATTN_RETURN_IF_ERROR(CheckWeighing(fusion));
  return CheckConfidence(fusion.confidence());
}

absl::StatusOr<engine::Fusion> DecodeFusion(const v1::Fusion& fusion, size_t members) {
  engine::Fusion decoded;
  const bool takes_largest =
      fusion.method() == v1::FUSION_METHOD_MAX || fusion.method() == v1::FUSION_METHOD_WEIGHTED_MAX;
  if (takes_largest) decoded.method = engine::FusionMethod::kMaximum;
  if (!IsWeighted(fusion.method())) {
    decoded.weights.assign(members, 1.0 / static_cast<double>(members));
    return decoded;
  }
  if (!fusion.has_confidence()) {
    STRUCTATTN_ASSIGN_OR_RETURN(decoded.weights, DecodeWeights(fusion, members));
    return decoded;
  }
  const v1::Confidence& confidence = fusion.confidence();
  decoded.confidence_samples = confidence.has_samples() ? confidence.samples() : kDefaultSamples;
  if (confidence.has_temperature()) decoded.confidence_temperature = confidence.temperature();
  const size_t all = members * (1 + decoded.confidence_samples);
  if (all <= kMaxContinuations) return decoded;
  return engine::InvalidField(
      "fusion.confidence.samples", "TOO_MANY_CONTINUATIONS",
      absl::StrCat(decoded.confidence_samples, " and a greedy one of ", members, " members are ",
                   all, " continuations; at most ", kMaxContinuations, " are allowed"));
}

}  // namespace structattn
