// A Generate request with fusion while it is served: one prompt, a sequence for each member behind
// it, and one answer. Every token is picked from the fused distribution once all members have their
// logits, whatever step each was computed in, and is appended to all: lock-step by what is awaited,
// not by when it runs.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "server/engine/sampling/fused_distribution.h"
#include "server/engine/task/confidence.h"
#include "server/engine/task/generating_task.h"

namespace structattn::engine {

class FusionTask final : public GeneratingTask {
 public:
  // The request has branches and a fusion. The costly part of a request: for any thread.
  FusionTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink,
             const SequenceModel& model);

  Sequences Begin() override;
  bool IsPaused(const Sequence& sequence) const override;
  void Stop(FinishReason reason) override;

 private:
  // Continuations: the members, then the samples of confidence_.
  int32_t members() const { return static_cast<int32_t>(request().branches.size()); }
  const Generation& GenerationOf(int32_t continuation) const override;
  absl::Status Take(int32_t continuation, std::span<const float> logits, Sampler* sampler) override;
  absl::Status FinishRow(Sampler* sampler) override;

  void Emit(TokenEvent event);
  FinishEvent MakeFinish() const;

  Generation answer_;
  std::optional<Confidence> confidence_;  // Present where the weights come from it.
  FusedDistribution fused_;
  std::vector<FusionMember> worth_;  // One for each member.
  std::vector<double> weights_;      // Empty until they are known.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_
