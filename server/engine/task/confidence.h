// How sure each branch of a request is: whether samples of it answer what its greedy continuation
// answers. Knows neither KV nor sequences: the task that asks runs the continuations.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_CONFIDENCE_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_CONFIDENCE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/sampling/sampler.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/generation.h"

namespace structattn::engine {

class Confidence {
 public:
  // The request is complete and outlives this; it has a fusion without weights.
  Confidence(const GenerateRequest& request, const SequenceModel& model);
  Confidence(const Confidence&) = delete;

  // The continuations of all branches: branch * (1 + samples), then the greedy one, then samples.
  int32_t size() const { return static_cast<int32_t>(samples_.size()); }
  const Generation& sample(int32_t number) const { return samples_[number].generation; }
  bool complete() const { return unfinished_ == 0; }
  int32_t generated_tokens() const;

  // Chooses the next token of one that is not finished from its logits.
  absl::Status SampleNext(int32_t number, std::span<const float> logits, Sampler* sampler);

  // When complete, of each branch: its greedy text, the samples that agree, and the weight: their
  // share of all that agree; where none does, all weigh the same.
  std::vector<FusionMember> Members() const;

 private:
  struct Sample {
    Generation generation;
    std::string text = {};
  };
  static SamplingParams At(float temperature, SamplingParams sampling);

  // The parameters of the greedy continuation and of the samples.
  const SamplingParams greedy_;
  const SamplingParams sampled_;
  const int32_t per_branch_;
  std::vector<Sample> samples_;
  int32_t unfinished_ = 0;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_CONFIDENCE_H_
