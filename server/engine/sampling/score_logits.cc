// Implements score_logits.h.
#include "server/engine/sampling/score_logits.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/status/status.h"
#include "kernels/sampling/summarize_logits.h"

namespace structattn::engine {

absl::StatusOr<ScoredRow> ScoredRow::Make(std::span<const float> logits) {
  const LogitsSummary summary = SummarizeLogits(logits);
  if (!std::isfinite(summary.log_sum_exp)) {
    return absl::InternalError("the model computed logits that are not finite");
  }
  return ScoredRow(logits, summary.log_sum_exp);
}

float ScoredRow::Logprob(int32_t token_id) const {
  return static_cast<float>(logits_[token_id] - log_sum_exp_);
}

int32_t ScoredRow::Rank(int32_t token_id) const {
  const float own = logits_[token_id];
  int32_t rank = 1;
  for (const float logit : logits_) rank += logit > own;
  for (const float logit : logits_.first(token_id)) rank += logit == own;
  return rank;
}

std::vector<TokenLogprob> ScoredRow::Best(int32_t count) const {
  std::vector<int32_t> ids(logits_.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + std::min<int64_t>(count, static_cast<int64_t>(ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [this](int32_t a, int32_t b) {
    return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
  });
  std::vector<TokenLogprob> best;
  for (auto id = ids.begin(); id != end; ++id) best.push_back({*id, Logprob(*id)});
  return best;
}

}  // namespace structattn::engine
