// How likely given tokens are in one row of logits. Reads the row where it is and keeps nothing of
// it. The bits depend on the row and the ids alone.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_SCORE_LOGITS_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_SCORE_LOGITS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/sampling/sampling_params.h"

namespace structattn::engine {

class ScoredRow {
 public:
  // INTERNAL when the logits have a NaN, an infinity above all, or no finite value. `logits` stay.
  static absl::StatusOr<ScoredRow> Make(std::span<const float> logits);

  double log_sum_exp() const { return log_sum_exp_; }
  float Logprob(int32_t token_id) const;
  // 1 + the tokens that are likelier, of equals those of smaller id. One pass over the row.
  int32_t Rank(int32_t token_id) const;
  // The `count` likeliest, best first; ties by smaller id.
  std::vector<TokenLogprob> Best(int32_t count) const;

 private:
  ScoredRow(std::span<const float> logits, double log_sum_exp)
      : logits_(logits), log_sum_exp_(log_sum_exp) {}

  std::span<const float> logits_;
  double log_sum_exp_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_SCORE_LOGITS_H_
