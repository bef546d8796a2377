// One next-token distribution out of several, which arrive one by one: the logits of each member
// are held until all are there. Knows no sequences. The bits of a result depend on the rows, the
// weights and the method alone, not on the order of arrival.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_FUSED_DISTRIBUTION_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_FUSED_DISTRIBUTION_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/sampling/score_logits.h"

namespace structattn::engine {

enum class FusionMethod { kAverage, kMaximum };

// With p_i the softmax of member i's logits and w_i its weight, the fused distribution is the sum
// of w_i p_i, or the largest w_i p_i over the members, divided by its sum over the vocabulary.
class FusedDistribution {
 public:
  FusedDistribution(FusionMethod method, int32_t members) : method_(method), rows_(members) {}

  // Holds a copy of `logits` [vocabulary], the same for all. INTERNAL when they are not finite
  // (ScoredRow).
  absl::Status Take(int32_t member, std::span<const float> logits);
  bool Has(int32_t member) const { return rows_[member].scored.has_value(); }
  bool complete() const { return held_ == static_cast<int32_t>(rows_.size()); }

  // Scores [vocabulary] whose softmax is the fused distribution: of one member with a weight, its
  // logits themselves, to the bit. Complete; `weights`, one per member, are not negative and not
  // all zero. Valid until Clear.
  std::span<const float> Fuse(std::span<const double> weights);

  // The token's log-probability by each member's own softmax.
  std::vector<float> MemberLogprobs(int32_t token_id) const;

  // The members' next rows follow.
  void Clear();

 private:
  struct Row {
    std::vector<float> logits;
    std::optional<ScoredRow> scored;  // Made of `logits`; empty: not there yet.
  };
  void TakeLargest(const Row& row, float shift);
  void AddToSums(const Row& row, float shift);

  const FusionMethod method_;
  std::vector<Row> rows_;
  int32_t held_ = 0;
  // Workspace, [vocabulary], reused.
  std::vector<float> fused_;
  std::vector<float> sums_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_FUSED_DISTRIBUTION_H_
