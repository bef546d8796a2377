// Implements sampler.h. Sums run in a fixed order, in double: the bits of a result depend on the
// row alone. Only as many candidates are sorted as the filters can keep.
#include "server/engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling/summarize_logits.h"
#include "server/engine/sampling/exp_negative.h"

namespace structattn::engine {
namespace {

constexpr int kLanes = 16;  // Independent partial results, so that the compiler uses SIMD.

// The largest value that is not NaN; -infinity when there is none.
float Largest(std::span<const float> values) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  for (size_t i = whole; i < values.size(); ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

// The CTRL rule (Keskar et al. 2019): a seen token becomes less likely whatever the sign.
float Repeated(float score, float penalty) {
  return score > 0.0f ? score / penalty : score * penalty;
}

bool HasPenalty(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

}  // namespace

TokenHistory::TokenHistory(const SamplingParams& params, std::span<const int32_t> prompt_ids)
    : enabled_(HasPenalty(params)) {
  AddGiven(prompt_ids);
}

void TokenHistory::AddGiven(std::span<const int32_t> token_ids) {
  if (!enabled_) return;
  for (int32_t id : token_ids) seen_.try_emplace(id, 0);
}

void TokenHistory::AddGenerated(int32_t token_id) {
  if (enabled_) ++seen_[token_id];
}

absl::StatusOr<SampledToken> Sampler::Sample(const SampleInput& input) {
  const LogitsSummary summary = SummarizeLogits(input.logits);
  if (!std::isfinite(summary.log_sum_exp)) {
    return absl::InternalError("the model computed logits that are not finite");
  }
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(input.logits[id] - summary.log_sum_exp);
  };
  SampledToken sampled;
  if (input.top_logprobs > 0) {
    RankBest(input.logits, input.top_logprobs);
    sampled.top_logprobs.reserve(ranked_.size());
    for (const Ranked& best : ranked_) {
      sampled.top_logprobs.push_back({best.token_id, logprob(best.token_id)});
    }
  }
  const std::span<const float> scores = Adjust(input);
  if (input.params->temperature == 0.0f) {
    sampled.token_id =
        scores.data() == input.logits.data() ? summary.best_id : SummarizeLogits(scores).best_id;
  } else {
    sampled.token_id = Draw(scores, input);
  }
  sampled.logprob = logprob(sampled.token_id);
  return sampled;
}

// The logits after bias and penalties, finite at the top so that differences stay defined.
std::span<const float> Sampler::Adjust(const SampleInput& input) {
  const SamplingParams& params = *input.params;
  if (params.logit_bias.empty() && input.history->seen().empty()) return input.logits;
  constexpr float kMost = std::numeric_limits<float>::max();
  scores_.assign(input.logits.begin(), input.logits.end());
  for (const auto& [id, bias] : params.logit_bias) scores_[id] += bias;
  for (const auto& [id, generated] : input.history->seen()) {
    float score = Repeated(scores_[id], params.repetition_penalty);
    if (generated > 0) {
      score -= params.presence_penalty + params.frequency_penalty * static_cast<float>(generated);
    }
    scores_[id] = std::clamp(score, -kMost, kMost);
  }
  return scores_;
}

// Fills ranked_ with the `count` best values (or all), best first. A heap with the worst on top:
// nearly all values cost one comparison.
void Sampler::RankBest(std::span<const float> values, int64_t count) {
  const auto before = [](const Ranked& a, const Ranked& b) { return a.Before(b); };
  const size_t kept = std::min<size_t>(count, values.size());
  ranked_.clear();
  for (size_t i = 0; i < kept; ++i) ranked_.push_back({values[i], static_cast<int32_t>(i)});
  std::make_heap(ranked_.begin(), ranked_.end(), before);
  for (size_t i = kept; i < values.size(); ++i) {
    if (!(values[i] > ranked_.front().value)) continue;  // Equal: the smaller id stays.
    std::pop_heap(ranked_.begin(), ranked_.end(), before);
    ranked_.back() = {values[i], static_cast<int32_t>(i)};
    std::push_heap(ranked_.begin(), ranked_.end(), before);
  }
  std::sort_heap(ranked_.begin(), ranked_.end(), before);
}

// Temperature, top-k, top-p, min-p, then the inverse of the cumulative distribution over what is
// left, in a fixed order.
int32_t Sampler::Draw(std::span<const float> scores, const SampleInput& input) {
  const SamplingParams& params = *input.params;
  candidates_.clear();
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < scores.size()) {
    RankBest(scores, params.top_k);
    const float best = ranked_.front().value;
    for (const Ranked& ranked : ranked_) {
      candidates_.push_back(
          {ExpNegative((ranked.value - best) / params.temperature), ranked.token_id});
    }
  } else {
    const float best = Largest(scores);
    candidates_.resize(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      candidates_[i] = {ExpNegative((scores[i] - best) / params.temperature),
                        static_cast<int32_t>(i)};
    }
  }
  if (params.top_p < 1.0f) KeepTopP(params.top_p);
  std::erase_if(candidates_, [&](const Candidate& candidate) {
    return candidate.weight == 0.0f || candidate.weight < params.min_p;
  });
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  const double target = UniformDraw(input.draw) * total;
  double cumulative = 0.0;
  for (const Candidate& candidate : candidates_) {
    cumulative += candidate.weight;
    if (cumulative > target) return candidate.token_id;
  }
  return candidates_.back().token_id;
}

// Keeps the fewest best candidates whose share of all weight is at least top_p, best first. Sorts
// only those above a weight that they certainly reach.
void Sampler::KeepTopP(float top_p) {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  const double target = static_cast<double>(top_p) * total;

  double heavy_total = 0.0;
  auto heavy_end = candidates_.begin();
  for (float threshold : {1e-2f, 1e-4f, 1e-6f, 0.0f}) {
    const auto new_end =
        std::partition(heavy_end, candidates_.end(),
                       [&](const Candidate& candidate) { return candidate.weight >= threshold; });
    for (; heavy_end != new_end; ++heavy_end) heavy_total += heavy_end->weight;
    if (heavy_total >= target) break;
  }
  std::sort(candidates_.begin(), heavy_end, [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token_id < b.token_id;
  });
  double cumulative = 0.0;
  auto kept_end = candidates_.begin();
  while (kept_end != heavy_end && (kept_end == candidates_.begin() || cumulative < target)) {
    cumulative += kept_end->weight;
    ++kept_end;
  }
  candidates_.erase(kept_end, candidates_.end());
}

}  // namespace structattn::engine
