// A Generate request with fusion while it is served: one prompt, a sequence for each member behind
// it, and one answer. Every token is picked from the fused distribution once all members have their
// logits, whatever step each was computed in, and is appended to all: lock-step by what is awaited,
// not by when it runs. Made by server/engine/engine, driven by server/engine/serving_loop through
// the Task interface.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/engine/sampling/fused_distribution.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/branched_prompt.h"
#include "server/engine/task/confidence.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/generation.h"
#include "server/engine/task/task.h"

namespace structattn::engine {

class FusionTask final : public Task {
 public:
  // The request has branches and a fusion. The costly part of a request: for any thread.
  FusionTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink,
             const SequenceModel& model);

  absl::Status CheckFits(int32_t kv_blocks) const override;
  Sequences Begin() override;
  absl::Status Read(const LogitsRow& row, Sampler* sampler) override;
  void Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) override;
  bool IsPaused(const Sequence& sequence) const override;
  void Stop(FinishReason reason) override;
  void Fail(const absl::Status& status) override;

 private:
  // Continuations: the members, then the samples of confidence_.
  int32_t members() const { return static_cast<int32_t>(request_.branches.size()); }
  absl::Status ReadPrompt(const LogitsRow& row, Sampler* sampler);
  absl::Status PickWhenComplete(Sampler* sampler);
  void Continue(Sequence* sequence) const;
  void Emit(TokenEvent event);
  void Finish();

  GenerateRequest request_;  // Its prompt is in prompt_.
  std::shared_ptr<EventSink> sink_;
  Generation answer_;
  std::optional<Confidence> confidence_;  // Where the weights come from it.
  BranchedPrompt prompt_;
  FusedDistribution fused_;
  std::vector<FusionMember> worth_;  // Of each member.
  std::vector<double> weights_;      // Empty until they are known.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_FUSION_TASK_H_
