// Implements generate_checks.h.
#include "server/serving/generate_checks.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/serving/checks.h"
#include "server/serving/prepare_generate.h"

namespace structattn::serving {

using engine::InvalidField;

namespace {

absl::Status CheckLogitBias(const engine::SamplingParams& sampling, int64_t vocabulary_size) {
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("sampling.logit_bias",
                                        static_cast<int64_t>(sampling.logit_bias.size()),
                                        Limits::kMaxLogitBiasEntries));
  for (const auto& [id, bias] : sampling.logit_bias) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(field, id, vocabulary_size));
    STRUCTATTN_RETURN_IF_ERROR(
        CheckRange(field, bias, {-Limits::kMaxLogitBias, Limits::kMaxLogitBias}));
  }
  return absl::OkStatus();
}

absl::Status CheckBranchSource(const GenerateRequest& request) {
  const int64_t branches = static_cast<int64_t>(request.branches.size());
  if (request.fusion->source == FusionRequest::Source::kPerParaphrasePrompts) {
    if (branches == 0) return absl::OkStatus();
    return InvalidField("branches", "FUSION_SOURCE_MISMATCH",
                        absl::StrCat(branches,
                                     " branches given, but fusion.source says "
                                     "PER_PARAPHRASE_PROMPTS; branches need BRANCHES"));
  }
  if (branches == 0) {
    return InvalidField("branches", "FUSION_SOURCE_MISMATCH",
                        "empty, but fusion.source says BRANCHES; at least one is needed");
  }
  return CheckCount("branches", branches, Limits::kMaxFusionMembers);
}

absl::Status CheckConfidence(const Confidence& confidence) {
  if (confidence.samples < 1 || confidence.samples > Limits::kMaxSamples) {
    return InvalidField("fusion.confidence.samples", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(confidence.samples, " is not in 1..", Limits::kMaxSamples));
  }
  return CheckRange("fusion.confidence.temperature", confidence.temperature,
                    {0.0f, Limits::kMaxTemperature, /*low_allowed=*/false});
}

// Weights come from nowhere, from the caller or from confidence.
absl::Status CheckWeightSource(const FusionRequest& fusion) {
  const bool has_weights = !fusion.weights.empty();
  const bool has_confidence = fusion.confidence.has_value();
  if (!fusion.is_weighted) {
    if (!has_weights && !has_confidence) return absl::OkStatus();
    return InvalidField(has_weights ? "fusion.weights" : "fusion.confidence", "WEIGHTS_NOT_ALLOWED",
                        "given, but only WEIGHTED_AVG and WEIGHTED_MAX have weights");
  }
  if (has_weights && has_confidence) {
    return InvalidField("fusion.confidence", "WEIGHTS_GIVEN_TWICE",
                        "given beside fusion.weights; one of the two is needed");
  }
  if (has_weights || has_confidence) return absl::OkStatus();
  return InvalidField("fusion.weights", "WEIGHTS_MISSING",
                      "empty; WEIGHTED_AVG and WEIGHTED_MAX need one for each member, or "
                      "fusion.confidence");
}

absl::Status CheckSampling(const engine::SamplingParams& sampling, int64_t vocabulary_size) {
  const struct {
    const char* field;
    float value;
    Range range;
  } checks[] = {
      {"sampling.temperature", sampling.temperature, {0.0f, Limits::kMaxTemperature}},
      {"sampling.top_p", sampling.top_p, {0.0f, 1.0f, false}},
      {"sampling.min_p", sampling.min_p, {0.0f, 1.0f}},
      {"sampling.repetition_penalty",
       sampling.repetition_penalty,
       {0.0f, Limits::kMaxPenalty, false}},
      {"sampling.presence_penalty",
       sampling.presence_penalty,
       {-Limits::kMaxPenalty, Limits::kMaxPenalty}},
      {"sampling.frequency_penalty",
       sampling.frequency_penalty,
       {-Limits::kMaxPenalty, Limits::kMaxPenalty}},
  };
  for (const auto& check : checks) {
    STRUCTATTN_RETURN_IF_ERROR(CheckRange(check.field, check.value, check.range));
  }
  if (sampling.top_k < 0) {
    return InvalidField("sampling.top_k", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(sampling.top_k, " is negative; 0 means off"));
  }
  return CheckLogitBias(sampling, vocabulary_size);
}

absl::Status CheckStopping(const engine::StoppingParams& stopping, int64_t vocabulary_size) {
  if (stopping.max_tokens < 1) {
    return InvalidField("stopping.max_tokens", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(stopping.max_tokens, " is not 1 or more"));
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("stopping.stop_strings",
                                        static_cast<int64_t>(stopping.stop_strings.size()),
                                        Limits::kMaxStopStrings));
  for (size_t i = 0; i < stopping.stop_strings.size(); ++i) {
    const size_t bytes = stopping.stop_strings[i].size();
    if (bytes == 0 || bytes > Limits::kMaxStopStringBytes) {
      return InvalidField(
          absl::StrCat("stopping.stop_strings[", i, "]"), "STOP_STRING_LENGTH_OUT_OF_RANGE",
          absl::StrCat(bytes, " bytes; 1..", Limits::kMaxStopStringBytes, " are allowed"));
    }
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("stopping.stop_token_ids",
                                        static_cast<int64_t>(stopping.stop_token_ids.size()),
                                        Limits::kMaxStopTokenIds));
  for (size_t i = 0; i < stopping.stop_token_ids.size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(absl::StrCat("stopping.stop_token_ids[", i, "]"),
                                            stopping.stop_token_ids[i], vocabulary_size));
  }
  return absl::OkStatus();
}

// How many continuations the request asks for, and in which groups.
absl::Status CheckContinuations(const GenerateRequest& request) {
  const int64_t branches = static_cast<int64_t>(request.branches.size());
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("branches", branches, Limits::kMaxBranches));
  if (branches > 0 && request.generated_group != 0) {
    return InvalidField(
        "generated_group", "GROUP_GIVEN_TWICE",
        absl::StrCat(request.generated_group, " given beside branches, which name their groups"));
  }
  for (int64_t i = 0; i < branches; ++i) {
    const size_t bytes = request.branches[i].cue.size();
    if (bytes <= Limits::kMaxBranchCueBytes) continue;
    return InvalidField(
        absl::StrCat("branches[", i, "].cue"), "BRANCH_CUE_TOO_LONG",
        absl::StrCat(bytes, " bytes; at most ", Limits::kMaxBranchCueBytes, " are allowed"));
  }
  if (request.n < 1 || request.n > Limits::kMaxSamples) {
    return InvalidField("n", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(request.n, " is not in 1..", Limits::kMaxSamples));
  }
  const int32_t best_of = request.best_of.value_or(request.n);
  if (best_of < request.n || best_of > Limits::kMaxSamples) {
    return InvalidField("best_of", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(best_of, " is not in ", request.n, "..", Limits::kMaxSamples,
                                     "; it is n or more"));
  }
  const int64_t all = best_of * std::max<int64_t>(branches, 1);
  if (all <= Limits::kMaxContinuations) return absl::OkStatus();
  return InvalidField(request.best_of.has_value() ? "best_of" : "n", "TOO_MANY_CONTINUATIONS",
                      absl::StrCat(best_of, " samples of ", branches, " branches are ", all,
                                   "; at most ", Limits::kMaxContinuations, " are allowed"));
}

// Everything of the fusion that does not depend on how many members there are.
absl::Status CheckFusion(const GenerateRequest& request) {
  const bool several_samples = request.n > 1;
  if (several_samples || request.best_of.value_or(1) > 1) {
    return InvalidField(several_samples ? "n" : "best_of", "FUSION_OF_SAMPLES",
                        "more than 1, but fusion gives one answer");
  }
  if (request.generated_group != 0) {
    return InvalidField("generated_group", "GROUP_GIVEN_TWICE",
                        absl::StrCat(request.generated_group,
                                     " given beside fusion, whose members have their groups"));
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckBranchSource(request));
  STRUCTATTN_RETURN_IF_ERROR(CheckWeightSource(*request.fusion));
  if (!request.fusion->confidence.has_value()) return absl::OkStatus();
  return CheckConfidence(*request.fusion->confidence);
}

}  // namespace

absl::Status CheckGenerate(const GenerateRequest& request, const Model& model,
                           const Limits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckHeader(request.header));
  STRUCTATTN_RETURN_IF_ERROR(CheckTopLogprobs("output.top_logprobs", request.top_logprobs));
  STRUCTATTN_RETURN_IF_ERROR(CheckContinuations(request));
  if (request.fusion.has_value()) STRUCTATTN_RETURN_IF_ERROR(CheckFusion(request));
  STRUCTATTN_RETURN_IF_ERROR(CheckSampling(request.sampling, model.config.vocab_size));
  STRUCTATTN_RETURN_IF_ERROR(CheckStopping(request.stopping, model.config.vocab_size));
  return engine::CheckPrompt(request.prompt, PromptLimitsFor(model, limits));
}

}  // namespace structattn::serving
