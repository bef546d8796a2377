// From one row of logits to the next token and its log-probability. A result depends on the row,
// the parameters and the tokens so far only, bit for bit; no state survives from row to row.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLER_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/engine/sampling/philox.h"
#include "server/engine/sampling/sampling_params.h"

namespace structattn::engine {

// What the penalties look at: the ids seen so far. Kept only when `params` has a penalty.
class TokenHistory {
 public:
  TokenHistory(const SamplingParams& params, std::span<const int32_t> prompt_ids);
  void AddGiven(std::span<const int32_t> token_ids);  // More of the prompt.
  void AddGenerated(int32_t token_id);

  // Every id of prompt and output, with its number of occurrences in the output.
  const absl::flat_hash_map<int32_t, int32_t>& seen() const { return seen_; }

 private:
  const bool enabled_;
  absl::flat_hash_map<int32_t, int32_t> seen_;
};

struct SampleInput {
  std::span<const float> logits;  // [vocabulary]
  const SamplingParams* params;
  const TokenHistory* history;
  DrawId draw;
  int32_t top_logprobs = 0;
};

struct SampledToken {
  int32_t token_id = 0;
  float logprob = 0.0f;                    // By the raw softmax.
  std::vector<TokenLogprob> top_logprobs;  // Best first, ties by smaller id.
};

class Sampler {
 public:
  // INTERNAL when the logits have a NaN, an infinity above all, or no finite value.
  absl::StatusOr<SampledToken> Sample(const SampleInput& input);

 private:
  struct Candidate {
    float weight;  // exp((score - best score) / temperature): 1 for the best.
    int32_t token_id;
  };
  // A logit with its id, ordered by higher value, then smaller id.
  struct Ranked {
    float value;
    int32_t token_id;
    bool Before(const Ranked& other) const {
      return value != other.value ? value > other.value : token_id < other.token_id;
    }
  };

  std::span<const float> Adjust(const SampleInput& input);
  void RankBest(std::span<const float> values, int64_t count);
  int32_t Draw(std::span<const float> scores, const SampleInput& input);
  void KeepTopP(float top_p);

  // Workspace, reused from row to row.
  std::vector<float> scores_;
  std::vector<Ranked> ranked_;
  std::vector<Candidate> candidates_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLER_H_
