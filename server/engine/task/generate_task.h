// A Generate request while it is served: one prompt, then its continuations, each in a sequence
// that shares the prompt's blocks and ends by itself. Made by server/engine/engine, driven by
// server/engine/serving_loop through the Task interface.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/engine/prompt/branches.h"
#include "server/engine/sampling/sampling_params.h"
#include "server/engine/task/branched_prompt.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/generation.h"
#include "server/engine/task/task.h"

namespace structattn::engine {

class GenerateTask final : public Task {
 public:
  // The prompt has at least one token. The costly part of a request: for any thread.
  GenerateTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink,
               const SequenceModel& model);

  absl::Status CheckFits(int32_t kv_blocks) const override;
  Sequences Begin() override;
  absl::Status Read(const LogitsRow& row, Sampler* sampler) override;
  void Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) override;
  void Stop(FinishReason reason) override;
  void Fail(const absl::Status& status) override;

 private:
  const Branch& BranchOf(const Generation& generation) const {
    return request_.branches[generation.branch()];
  }
  static std::vector<Generation> MakeGenerations(const GenerateRequest& request,
                                                 const SequenceModel& model);
  absl::Status SampleNext(int32_t number, std::span<const float> logits, Sampler* sampler);
  void Emit(int32_t number, TokenEvent event);
  void EmitBest(int32_t branch);
  void FinishIfDone();
  FinishEvent MakeFinish() const;

  GenerateRequest request_;  // Its prompt is in prompt_.
  std::shared_ptr<EventSink> sink_;
  std::vector<Generation> generations_;  // branch * best_of + sample.
  BranchedPrompt prompt_;
  std::vector<std::vector<TokenEvent>> held_;  // Of each, while it may not be among the best.
  std::vector<ContinuationEnd> ends_;          // Of those told.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_
