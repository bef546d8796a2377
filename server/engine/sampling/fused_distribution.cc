// Implements fused_distribution.h in the logarithm, so that nothing underflows: with
// a_i = logit_i - log sum exp_i + log w_i, the maximum is max_i a_i and the average is
// max + log(sum_i e^(a_i - max)).
#include "server/engine/sampling/fused_distribution.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "server/engine/sampling/exp_negative.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

// Stands for a probability of zero: differences of such values stay defined.
constexpr float kImpossible = -1e30f;

float Shifted(float logit, float shift) { return std::max(logit + shift, kImpossible); }

}  // namespace

absl::Status FusedDistribution::Take(int32_t member, std::span<const float> logits) {
  Row& row = rows_[member];
  STRUCTATTN_CHECK(!row.scored.has_value());
  row.logits.assign(logits.begin(), logits.end());
  STRUCTATTN_ASSIGN_OR_RETURN(row.scored, ScoredRow::Make(row.logits));
  ++held_;
  return absl::OkStatus();
}

void FusedDistribution::Clear() {
  for (Row& row : rows_) row.scored.reset();
  held_ = 0;
}

std::vector<float> FusedDistribution::MemberLogprobs(int32_t token_id) const {
  std::vector<float> logprobs;
  for (const Row& row : rows_) logprobs.push_back(row.scored->Logprob(token_id));
  return logprobs;
}

std::span<const float> FusedDistribution::Fuse(std::span<const double> weights) {
  STRUCTATTN_CHECK(complete() && weights.size() == rows_.size());
  struct Part {
    const Row* row;
    float shift;
  };
  std::vector<Part> parts;
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (weights[i] == 0.0) continue;
    const double shift = std::log(weights[i]) - rows_[i].scored->log_sum_exp();
    parts.push_back({&rows_[i], static_cast<float>(shift)});
  }
  STRUCTATTN_CHECK(!parts.empty());
  if (parts.size() == 1) return parts[0].row->logits;
  fused_.assign(rows_[0].logits.size(), kImpossible);
  for (const Part& part : parts) TakeLargest(*part.row, part.shift);
  if (method_ == FusionMethod::kMaximum) return fused_;
  sums_.assign(fused_.size(), 0.0f);
  for (const Part& part : parts) AddToSums(*part.row, part.shift);
  for (size_t id = 0; id < fused_.size(); ++id) fused_[id] += std::log(sums_[id]);
  return fused_;
}

void FusedDistribution::TakeLargest(const Row& row, float shift) {
  const float* const logits = row.logits.data();
  float* const fused = fused_.data();
  for (size_t id = 0; id < fused_.size(); ++id) {
    fused[id] = std::max(fused[id], Shifted(logits[id], shift));
  }
}

void FusedDistribution::AddToSums(const Row& row, float shift) {
  const float* const logits = row.logits.data();
  const float* const fused = fused_.data();
  float* const sums = sums_.data();
  for (size_t id = 0; id < fused_.size(); ++id) {
    sums[id] += ExpNegative(Shifted(logits[id], shift) - fused[id]);
  }
}

}  // namespace structattn::engine
