// Implements request_codec.h.
#include "server/rpc/v1/request_codec.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/rpc/v1/prompt_codec.h"
#include "server/serving/checks.h"

namespace structattn::rpc {
namespace {

template <typename Message>
serving::RequestHeader DecodeHeader(const Message& request) {
  return {.request_id = request.request_id(),
          .model = request.model(),
          .timeout_ms = request.timeout_ms(),
          .cache = {.bypass = request.cache().bypass(), .salt = request.cache().salt()}};
}

template <typename Value>
void ReadIf(bool is_present, Value value, Value* target) {
  if (is_present) *target = value;
}

engine::SamplingParams DecodeSampling(const v1::Sampling& sampling) {
  engine::SamplingParams decoded;
  ReadIf(sampling.has_temperature(), sampling.temperature(), &decoded.temperature);
  ReadIf(sampling.has_top_k(), sampling.top_k(), &decoded.top_k);
  ReadIf(sampling.has_top_p(), sampling.top_p(), &decoded.top_p);
  ReadIf(sampling.has_min_p(), sampling.min_p(), &decoded.min_p);
  ReadIf(sampling.has_repetition_penalty(), sampling.repetition_penalty(),
         &decoded.repetition_penalty);
  ReadIf(sampling.has_presence_penalty(), sampling.presence_penalty(), &decoded.presence_penalty);
  ReadIf(sampling.has_frequency_penalty(), sampling.frequency_penalty(),
         &decoded.frequency_penalty);
  decoded.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
  std::sort(decoded.logit_bias.begin(),
            decoded.logit_bias.end(),  // A map of the wire has no order.
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return decoded;
}

engine::StoppingParams DecodeStopping(const v1::Stopping& stopping) {
  engine::StoppingParams decoded;
  ReadIf(stopping.has_max_tokens(), stopping.max_tokens(), &decoded.max_tokens);
  decoded.stop_strings.assign(stopping.stop_strings().begin(), stopping.stop_strings().end());
  decoded.stop_token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  decoded.ignore_eos = stopping.ignore_eos();
  return decoded;
}

absl::Status DecodeMethod(const v1::Fusion& fusion, serving::FusionRequest* decoded) {
  switch (fusion.method()) {
    case v1::FUSION_METHOD_AVG:
    case v1::FUSION_METHOD_WEIGHTED_AVG:
      decoded->method = engine::FusionMethod::kAverage;
      break;
    case v1::FUSION_METHOD_MAX:
    case v1::FUSION_METHOD_WEIGHTED_MAX:
      decoded->method = engine::FusionMethod::kMaximum;
      break;
    default:
      return UnknownEnum("fusion.method", fusion.method(), "AVG, MAX, WEIGHTED_AVG, WEIGHTED_MAX");
  }
  decoded->is_weighted = fusion.method() == v1::FUSION_METHOD_WEIGHTED_AVG ||
                         fusion.method() == v1::FUSION_METHOD_WEIGHTED_MAX;
  return absl::OkStatus();
}

absl::Status DecodeSource(const v1::Fusion& fusion, serving::FusionRequest* decoded) {
  switch (fusion.source()) {
    case v1::FUSION_SOURCE_UNSPECIFIED:
    case v1::FUSION_SOURCE_PER_PARAPHRASE_PROMPTS:
      decoded->source = serving::FusionRequest::Source::kPerParaphrasePrompts;
      return absl::OkStatus();
    case v1::FUSION_SOURCE_BRANCHES:
      decoded->source = serving::FusionRequest::Source::kBranches;
      return absl::OkStatus();
    default:
      return UnknownEnum("fusion.source", fusion.source(), "PER_PARAPHRASE_PROMPTS, BRANCHES");
  }
}

absl::Status DecodeFusion(const v1::Fusion& fusion, serving::FusionRequest* decoded) {
  STRUCTATTN_RETURN_IF_ERROR(DecodeMethod(fusion, decoded));
  STRUCTATTN_RETURN_IF_ERROR(DecodeSource(fusion, decoded));
  decoded->weights.assign(fusion.weights().begin(), fusion.weights().end());
  if (!fusion.has_confidence()) return absl::OkStatus();
  serving::Confidence& confidence = decoded->confidence.emplace();
  ReadIf(fusion.confidence().has_samples(), fusion.confidence().samples(), &confidence.samples);
  ReadIf(fusion.confidence().has_temperature(), fusion.confidence().temperature(),
         &confidence.temperature);
  return absl::OkStatus();
}

absl::StatusOr<engine::ContinuationText> DecodeContinuation(const std::string& field,
                                                            const v1::Continuation& continuation) {
  engine::ContinuationText decoded;
  decoded.parse_special = continuation.parse_special();
  switch (continuation.content_case()) {
    case v1::Continuation::kText:
      decoded.content = continuation.text();
      return decoded;
    case v1::Continuation::kTokenIds:
      decoded.content = std::vector<int32_t>(continuation.token_ids().ids().begin(),
                                             continuation.token_ids().ids().end());
      return decoded;
    case v1::Continuation::CONTENT_NOT_SET:
      break;
  }
  return engine::InvalidField(field, "CONTENT_MISSING", "one of text, token_ids must be set");
}

serving::ReadOutsRequest DecodeReadOuts(const v1::ReadOuts& read_outs) {
  serving::ReadOutsRequest decoded;
  decoded.token_indices.assign(read_outs.token_indices().begin(), read_outs.token_indices().end());
  decoded.group_ends = read_outs.group_ends();
  decoded.candidate_token_ids.assign(read_outs.candidate_token_ids().begin(),
                                     read_outs.candidate_token_ids().end());
  decoded.top_logprobs = read_outs.top_logprobs();
  return decoded;
}

}  // namespace

absl::Status DecodeGenerateRequest(const v1::GenerateRequest& request,
                                   const serving::Limits& limits,
                                   serving::GenerateRequest* decoded) {
  decoded->header = DecodeHeader(request);
  decoded->sampling = DecodeSampling(request.sampling());
  if (request.sampling().has_seed()) decoded->seed = request.sampling().seed();
  decoded->stopping = DecodeStopping(request.stopping());
  decoded->top_logprobs = request.output().top_logprobs();
  decoded->echo = request.output().echo();
  decoded->generated_group = request.generated_group();
  ReadIf(request.has_n(), request.n(), &decoded->n);
  if (request.has_best_of()) decoded->best_of = request.best_of();
  // Comes before anything is made of them, as with segments: a message can hold millions.
  STRUCTATTN_RETURN_IF_ERROR(
      serving::CheckCount("branches", request.branches_size(), serving::Limits::kMaxBranches));
  for (const v1::Branch& branch : request.branches()) {
    decoded->branches.push_back({.group = branch.group(),
                                 .cue = branch.branch_cue(),
                                 .parse_special = branch.parse_special()});
  }
  if (request.has_fusion()) {
    STRUCTATTN_RETURN_IF_ERROR(DecodeFusion(request.fusion(), &decoded->fusion.emplace()));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(decoded->prompt, DecodePrompt(request.prompt(), limits));
  return absl::OkStatus();
}

absl::Status DecodeScoreRequest(const v1::ScoreRequest& request, const serving::Limits& limits,
                                serving::ScoreRequest* decoded) {
  decoded->header = DecodeHeader(request);
  decoded->generated_group = request.generated_group();
  if (request.has_prompt_logprobs_start()) {
    decoded->prompt_logprobs_start = request.prompt_logprobs_start();
  }
  if (request.has_read_outs()) decoded->read_outs = DecodeReadOuts(request.read_outs());
  STRUCTATTN_RETURN_IF_ERROR(serving::CheckCount("continuations", request.continuations_size(),
                                                 serving::Limits::kMaxScoredContinuations));
  for (int i = 0; i < request.continuations_size(); ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        engine::ContinuationText text,
        DecodeContinuation(absl::StrCat("continuations[", i, "]"), request.continuations(i)));
    decoded->continuations.push_back(std::move(text));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(decoded->prompt, DecodePrompt(request.prompt(), limits));
  return absl::OkStatus();
}

absl::Status DecodeScoreRollingRequest(const v1::ScoreRollingRequest& request,
                                       serving::ScoreRollingRequest* decoded) {
  decoded->header = DecodeHeader(request);
  decoded->window_tokens = request.window_tokens();
  if (request.has_prefix_token_id()) decoded->prefix_token_id = request.prefix_token_id();
  STRUCTATTN_ASSIGN_OR_RETURN(decoded->text, DecodeContinuation("text", request.text()));
  return absl::OkStatus();
}

absl::Status DecodeInspectRequest(const v1::InspectRequest& request, const serving::Limits& limits,
                                  serving::InspectRequest* decoded) {
  decoded->header.model = request.model();
  STRUCTATTN_ASSIGN_OR_RETURN(decoded->prompt, DecodePrompt(request.prompt(), limits));
  return absl::OkStatus();
}

}  // namespace structattn::rpc
