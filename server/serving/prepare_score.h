// Score and ScoreRolling: from what a caller asks to what the engine scores, with every check, and
// from the engine's numbers to the answer. It is costly (it tokenizes) and pure: it runs no model
// and knows no call.
#ifndef STRUCTATTN_SERVER_SERVING_PREPARE_SCORE_H_
#define STRUCTATTN_SERVER_SERVING_PREPARE_SCORE_H_

#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/prompt/continuation_tokens.h"
#include "server/engine/served_model.h"
#include "server/engine/task/score_request.h"
#include "server/serving/limits.h"
#include "server/serving/provenance.h"
#include "server/serving/requests.h"

namespace structattn::serving {

// Target tokens and how likely each was.
struct ScoredTokens {
  std::vector<int32_t> token_ids;
  engine::TokenScores scores;  // One entry per token once the engine has answered.

  double logprob() const;  // The sum over the tokens.
  bool is_greedy() const;  // Every token rank is 1.
};

// The next-token distribution behind one prompt token.
struct ReadOutAnswer {
  int32_t token_index = 0;
  int32_t group = 0;                                    // The group of that token.
  std::vector<float> candidate_logprobs = {};           // In the order of the candidates.
  std::vector<engine::TokenLogprob> top_logprobs = {};  // Best first.
};

struct ScoreAnswer {
  std::vector<ScoredTokens>
      continuations;  // In the order asked for; a rolling score has one, the whole text.
  int32_t prompt_logprobs_start = 0;
  std::optional<ScoredTokens> prompt;    // The prompt's own tokens from that index on.
  std::vector<ReadOutAnswer> read_outs;  // Ordered by token index.
  int32_t windows = 0;                   // A rolling score's; else 0.
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  absl::Duration queue;
  absl::Duration prefill;
  absl::Duration decode;
  Provenance provenance;
};

// What the engine is asked, and the answer with everything that is known beforehand: token ids,
// places, provenance.
struct PreparedScore {
  engine::ScoreRequest request;
  ScoreAnswer answer;
  // Where each continuation of the answer is in the request.
  std::vector<engine::EncodedContinuations::Place> places;
};

// Every check that needs no tokenizer; cheap, for any thread.
absl::Status CheckScore(const ScoreRequest& request, const Model& model, const Limits& limits);
absl::Status CheckScoreRolling(const ScoreRollingRequest& request, const Model& model,
                               const Limits& limits);

// The request has passed its check. As with PrepareGenerate, times are left at their defaults, and
// a result after a requested stop means nothing.
absl::StatusOr<PreparedScore> PrepareScore(const ScoreRequest& request,
                                           const engine::ServedModel& served, const Limits& limits,
                                           const std::stop_token& stop = {});

absl::StatusOr<PreparedScore> PrepareScoreRolling(const ScoreRollingRequest& request,
                                                  const engine::ServedModel& served,
                                                  const std::stop_token& stop = {});

// Puts the engine's numbers into the answer of the request that they belong to.
ScoreAnswer CompleteAnswer(PreparedScore prepared, engine::ScoreEvent event);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_PREPARE_SCORE_H_
