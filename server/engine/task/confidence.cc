// Implements confidence.h.
#include "server/engine/task/confidence.h"

#include <utility>

#include "kernels/check.h"
#include "server/model/status_macros.h"

namespace structattn::engine {

SamplingParams Confidence::At(float temperature, SamplingParams sampling) {
  sampling.temperature = temperature;
  return sampling;
}

// Sample i draws the numbers of (seed, i), i from 1: those of 0 are the fused answer's.
Confidence::Confidence(const GenerateRequest& request, const SequenceModel& model)
    : greedy_(At(0.0f, request.sampling)),
      sampled_(At(request.fusion->confidence_temperature, request.sampling)),
      per_branch_(1 + request.fusion->confidence_samples) {
  STRUCTATTN_CHECK(request.fusion->weights.empty() && per_branch_ > 1);
  for (int32_t branch = 0; branch < static_cast<int32_t>(request.branches.size()); ++branch) {
    for (int32_t sample = 0; sample < per_branch_; ++sample) {
      const SamplingParams& sampling = sample == 0 ? greedy_ : sampled_;
      samples_.push_back({Generation(request, StartOf(request, sampling, branch, sample), model)});
      unfinished_ += samples_.back().generation.finish().has_value() ? 0 : 1;
    }
  }
}

absl::Status Confidence::SampleNext(int32_t number, std::span<const float> logits,
                                    Sampler* sampler) {
  auto& [generation, text] = samples_[number];
  SampleInput input = generation.NextSample(logits);
  input.top_logprobs = 0;
  STRUCTATTN_ASSIGN_OR_RETURN(SampledToken token, sampler->Sample(input));
  text += generation.Accept(std::move(token)).text;
  if (generation.finish().has_value()) --unfinished_;
  return absl::OkStatus();
}

int32_t Confidence::generated_tokens() const {
  int32_t tokens = 0;
  for (const Sample& sample : samples_) tokens += sample.generation.tokens();
  return tokens;
}

std::vector<FusionMember> Confidence::Members() const {
  STRUCTATTN_CHECK(complete());
  std::vector<FusionMember> members;
  int32_t agreeing = 0;
  for (int32_t greedy = 0; greedy < size(); greedy += per_branch_) {
    FusionMember member{.greedy_text = samples_[greedy].text};
    for (int32_t sample = greedy + 1; sample < greedy + per_branch_; ++sample) {
      if (samples_[sample].text == member.greedy_text) ++member.agreeing_samples;
    }
    agreeing += member.agreeing_samples;
    members.push_back(std::move(member));
  }
  for (FusionMember& member : members) {
    member.weight = agreeing > 0 ? static_cast<double>(member.agreeing_samples) / agreeing
                                 : 1.0 / static_cast<double>(members.size());
  }
  return members;
}

}  // namespace structattn::engine
