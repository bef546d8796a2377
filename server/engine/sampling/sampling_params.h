// How a request wants its tokens chosen and its continuations ended, and what a choice is reported
// with. Plain data; no parameter is checked here.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLING_PARAMS_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace structattn::engine {

// Filters apply in this order: bias, penalties, temperature, top-k, top-p, min-p.
struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy.
  int32_t top_k = 0;         // 0: off.
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  // By token id, which is one of the model's: a request that names another is refused before it is
  // queued.
  std::vector<std::pair<int32_t, float>> logit_bias;
};

struct StoppingParams {
  int32_t max_tokens = 128;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  // Special tokens that stop_strings name: they leave no text in which these could be found.
  std::vector<int32_t> stop_string_ids = {};
  bool ignore_eos = false;
};

enum class FinishReason { kStop, kStopToken, kStopString, kLength, kCancelled, kDeadline };

struct TokenLogprob {
  int32_t token_id;
  float logprob;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_SAMPLING_PARAMS_H_
