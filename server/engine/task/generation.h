// One continuation of a prompt that is sampled token by token: its branch, its text, its end.
// Knows neither KV nor the other continuations.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATION_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATION_H_

#include <cstdint>
#include <optional>
#include <span>

#include "server/engine/sampling/sampler.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/sampling/text_stream.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/sequence.h"

namespace structattn::engine {

// Where a continuation begins.
struct GenerationStart {
  const SamplingParams* sampling;  // Outlives the generation.
  int32_t branch = 0;
  int32_t sample = 0;
  int64_t given_tokens = 0;  // In front of it, against the context length.
  TokenHistory history;      // With the given tokens.
};

// Sample number `sample` of the request's branch number `branch`, drawn with `sampling`; the
// request, its prompt included, is complete.
GenerationStart StartOf(const GenerateRequest& request, const SamplingParams& sampling,
                        int32_t branch, int32_t sample);

class Generation {
 public:
  Generation(const GenerateRequest& request, GenerationStart start, const SequenceModel& model);

  int32_t branch() const { return branch_; }
  int32_t tokens() const { return tokens_; }
  // The most tokens it generates: max_tokens, cut to what the context leaves; may be 0.
  int32_t max_tokens() const { return max_tokens_; }
  // There was at least one.
  int32_t last_token() const { return last_token_; }
  double logprob() const { return logprob_; }  // Sum over the tokens.
  const std::optional<FinishReason>& finish() const { return finish_; }

  // Everything that choosing the next token from `logits` depends on.
  SampleInput NextSample(std::span<const float> logits) const;
  // Takes in the chosen token; may be the last one.
  TokenEvent Accept(SampledToken token);
  // Ends it early; the event holds the text that was held back.
  TokenEvent End(FinishReason reason);

 private:
  const SamplingParams* const sampling_;
  const int32_t top_logprobs_;
  const int32_t branch_;
  const int32_t sample_;
  const int32_t max_tokens_;
  TokenHistory history_;
  TextStream text_;
  int32_t tokens_ = 0;
  int32_t last_token_ = 0;
  double logprob_ = 0.0;
  std::optional<FinishReason> finish_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATION_H_
