// Implements prepare_generate.h.
#include "server/serving/prepare_generate.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/engine/prompt/branches.h"
#include "server/engine/prompt/per_paraphrase_prompts.h"
#include "server/model/status_macros.h"

namespace structattn::serving {

using engine::InvalidField;

namespace {

uint64_t DrawSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

engine::SamplingParams SeededSampling(const GenerateRequest& request) {
  engine::SamplingParams sampling = request.sampling;
  if (request.seed.has_value()) {
    sampling.seed = *request.seed;
  } else if (sampling.temperature > 0.0f) {
    sampling.seed = DrawSeed();
  }
  return sampling;
}

// Weights of the members, with sum 1.
absl::StatusOr<std::vector<double>> NormalizeWeights(const std::vector<double>& given,
                                                     size_t members) {
  if (given.size() != members) {
    return InvalidField(
        "fusion.weights", "WEIGHTS_MISMATCH",
        absl::StrCat(given.size(), " weights for ", members, " members; one for each is needed"));
  }
  double largest = 0.0;
  for (size_t i = 0; i < given.size(); ++i) {
    if (!std::isfinite(given[i]) || given[i] < 0.0) {
      return InvalidField(absl::StrCat("fusion.weights[", i, "]"), "VALUE_OUT_OF_RANGE",
                          absl::StrCat(given[i], " is not a finite number of 0 or more"));
    }
    largest = std::max(largest, given[i]);
  }
  if (largest == 0.0) {
    return InvalidField("fusion.weights", "WEIGHTS_ALL_ZERO",
                        "all are 0; at least one must be more");
  }
  // The largest divides them first, so that no sum overflows.
  std::vector<double> weights = given;
  double sum = 0.0;
  for (double& weight : weights) sum += weight /= largest;
  for (double& weight : weights) weight /= sum;
  return weights;
}

absl::StatusOr<engine::Fusion> PrepareFusion(const FusionRequest& request, size_t members) {
  engine::Fusion fusion;
  fusion.method = request.method;
  if (!request.is_weighted) {
    fusion.weights.assign(members, 1.0 / static_cast<double>(members));
    return fusion;
  }
  if (!request.confidence.has_value()) {
    STRUCTATTN_ASSIGN_OR_RETURN(fusion.weights, NormalizeWeights(request.weights, members));
    return fusion;
  }
  fusion.confidence_samples = request.confidence->samples;
  fusion.confidence_temperature = request.confidence->temperature;
  const int64_t all = static_cast<int64_t>(members) * (1 + fusion.confidence_samples);
  if (all <= Limits::kMaxContinuations) return fusion;
  return InvalidField(
      "fusion.confidence.samples", "TOO_MANY_CONTINUATIONS",
      absl::StrCat(fusion.confidence_samples, " and a greedy one of ", members, " members are ",
                   all, " continuations; at most ", Limits::kMaxContinuations, " are allowed"));
}

// Packed into one prompt, the tokens of a per-paraphrase prompt lie further apart than by
// themselves, and its length is another. A model notices the one where its sliding window ends, and
// the other where its rotary embedding depends on it.
absl::Status CheckPacked(const engine::EncodedPrompt& packed, const GenerateRequest& request,
                         const Model& model) {
  const int64_t tokens = packed.structure.size();
  const int32_t window = model.config.sliding_window;
  if (window != kNoWindow && tokens + request.stopping.max_tokens > window) {
    return InvalidField("fusion.source", "WINDOW_EXCEEDED",
                        absl::StrCat("per-paraphrase prompts of ", tokens, " tokens in all with ",
                                     request.stopping.max_tokens, " generated ones; at most ",
                                     window, ", the model's sliding window, are allowed"));
  }
  const int32_t length = DynamicRopeLength(model.config.rope.scaling);
  if (1 + std::ranges::max(packed.structure.positions()) <= length) return absl::OkStatus();
  return InvalidField(
      "fusion.source", "DYNAMIC_ROPE_EXCEEDED",
      absl::StrCat("a per-paraphrase prompt of more than ", length,
                   " tokens, from where on the model's rotary embedding depends on its length"));
}

// Special tokens of which a stop string is the whole text.
std::vector<int32_t> FindStopStringIds(const std::vector<std::string>& stop_strings,
                                       const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const std::string& text : stop_strings) {
    const int32_t id = tokenizer.FindToken(text);
    if (id >= 0 && tokenizer.IsSpecial(id)) ids.push_back(id);
  }
  return ids;
}

struct EncodedQuestion {
  engine::EncodedPrompt prompt;
  std::vector<engine::Branch> branches;
};

absl::StatusOr<EncodedQuestion> EncodeQuestion(const GenerateRequest& request, const Model& model,
                                               const Limits& limits, const std::stop_token& stop) {
  engine::PromptLimits prompt_limits = PromptLimitsFor(model, limits);
  prompt_limits.stop = stop;
  const Tokenizer& tokenizer = *model.tokenizer;
  if (request.fusion.has_value() &&
      request.fusion->source == FusionRequest::Source::kPerParaphrasePrompts) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        engine::PerParaphrasePrompts packed,
        engine::EncodePerParaphrasePrompts(request.prompt, tokenizer, prompt_limits));
    STRUCTATTN_RETURN_IF_ERROR(CheckPacked(packed.prompt, request, model));
    return EncodedQuestion{.prompt = std::move(packed.prompt),
                           .branches = std::move(packed.members)};
  }
  std::optional<int32_t> generated_group;
  if (request.branches.empty()) generated_group = request.generated_group;
  STRUCTATTN_ASSIGN_OR_RETURN(
      engine::EncodedPrompt encoded,
      engine::EncodePrompt(request.prompt, generated_group, tokenizer, prompt_limits));
  STRUCTATTN_ASSIGN_OR_RETURN(
      std::vector<engine::Branch> branches,
      engine::EncodeBranches(request.branches, encoded, tokenizer, prompt_limits));
  return EncodedQuestion{.prompt = std::move(encoded), .branches = std::move(branches)};
}

}  // namespace

engine::PromptLimits PromptLimitsFor(const Model& model, const Limits& limits) {
  return {.vocabulary_size = model.config.vocab_size,
          .context_length = model.config.context_length,
          .max_prompt_bytes = limits.max_prompt_bytes,
          .max_segments = limits.max_segments};
}

absl::StatusOr<engine::GenerateRequest> PrepareGenerate(const GenerateRequest& request,
                                                        const Model& model, const Limits& limits,
                                                        const std::stop_token& stop) {
  STRUCTATTN_ASSIGN_OR_RETURN(EncodedQuestion question,
                              EncodeQuestion(request, model, limits, stop));
  std::optional<engine::Fusion> fusion;
  if (request.fusion.has_value()) {
    STRUCTATTN_ASSIGN_OR_RETURN(fusion, PrepareFusion(*request.fusion, question.branches.size()));
  }
  engine::StoppingParams stopping = request.stopping;
  stopping.stop_string_ids = FindStopStringIds(stopping.stop_strings, *model.tokenizer);
  // More than the context holds is no error: the answer is cut short there.
  stopping.max_tokens =
      static_cast<int32_t>(std::min<int64_t>(stopping.max_tokens, model.config.context_length));
  return engine::GenerateRequest{.request_id = request.header.request_id,
                                 .prompt = std::move(question.prompt),
                                 .generated_group = request.generated_group,
                                 .branches = std::move(question.branches),
                                 .samples = request.n,
                                 .best_of = request.best_of.value_or(request.n),
                                 .fusion = std::move(fusion),
                                 .sampling = SeededSampling(request),
                                 .stopping = std::move(stopping),
                                 .cache = request.header.cache,
                                 .top_logprobs = request.top_logprobs};
}

absl::StatusOr<engine::EncodedPrompt> PrepareInspect(const InspectRequest& request,
                                                     const Model& model, const Limits& limits,
                                                     const std::stop_token& stop) {
  engine::PromptLimits prompt_limits = PromptLimitsFor(model, limits);
  prompt_limits.stop = stop;
  return engine::EncodePrompt(request.prompt, std::nullopt, *model.tokenizer, prompt_limits);
}

}  // namespace structattn::serving
