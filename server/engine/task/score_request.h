// What a client asks of the engine when nothing is generated (how likely given tokens are) and what
// it is answered. No gRPC, no protobuf.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_SCORE_REQUEST_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_SCORE_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/cache/sequence_blocks.h"
#include "server/engine/prompt/continuation_tokens.h"
#include "server/engine/prompt/prompt.h"
#include "server/engine/sampling/sampling_params.h"

namespace structattn::engine {

struct ScoreRequest {
  std::string request_id;
  std::vector<ScoredPrompt> prompts;     // At least one, each with something to read.
  std::vector<int32_t> candidates = {};  // Token ids whose log-probabilities the read-outs give.
  int32_t top_logprobs = 0;              // Best tokens that they give.
  CachePolicy cache = {};
  absl::Time arrival = absl::Now();
  absl::Time deadline = absl::InfiniteFuture();
};

// The scores of given tokens, one entry each.
struct TokenScores {
  std::vector<float> logprobs;  // Natural log of the softmax.
  std::vector<int32_t> ranks;   // 1: the most likely; ties by smaller id.
};

struct ReadOut {
  int32_t token = 0;                       // Prompt token; the next one is predicted.
  std::vector<float> candidate_logprobs;   // In the order of ScoreRequest::candidates.
  std::vector<TokenLogprob> top_logprobs;  // Best first.
};

struct PromptScores {
  std::vector<TokenScores> continuations;
  TokenScores prompt_logprobs;
  std::vector<ReadOut> read_outs;
};

struct ScoreEvent {
  std::vector<PromptScores> prompts;  // In the order of ScoreRequest::prompts.
  int32_t prompt_tokens = 0;          // In all prompts.
  int32_t cached_tokens = 0;          // Those among them not computed for the request.
  absl::Duration queue;
  absl::Duration prefill;
  absl::Duration decode;
};

// Hears the one answer, on the engine thread: exactly one of the two, once. Must not block.
class ScoreSink {
 public:
  virtual ~ScoreSink() = default;
  virtual void OnScores(ScoreEvent event) = 0;
  virtual void OnError(const absl::Status& status) = 0;
};

// The error of a request that was stopped: CANCELLED or DEADLINE_EXCEEDED.
inline absl::Status UnscoredError(FinishReason reason) {
  return reason == FinishReason::kDeadline
             ? absl::DeadlineExceededError("timeout_ms has passed before every token was scored")
             : absl::CancelledError("the request was cancelled");
}

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_SCORE_REQUEST_H_
