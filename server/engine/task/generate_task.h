// A Generate request while it is served: one prompt, then its continuations, each in a sequence
// that shares the prompt's blocks and ends by itself.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "server/engine/task/generating_task.h"

namespace structattn::engine {

class GenerateTask final : public GeneratingTask {
 public:
  // The prompt has at least one token. The costly part of a request: for any thread.
  GenerateTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink,
               const SequenceModel& model);

  Sequences Begin() override;
  void Stop(FinishReason reason) override;

 private:
  const Generation& GenerationOf(int32_t continuation) const override {
    return generations_[continuation];
  }
  absl::Status Take(int32_t continuation, std::span<const float> logits, Sampler* sampler) override;
  absl::Status FinishRow(Sampler* sampler) override;

  void Emit(int32_t continuation, TokenEvent event);
  void EmitBest(int32_t branch);
  void FinishIfDone();
  FinishEvent MakeFinish() const;

  std::vector<Generation> generations_;  // branch * best_of + sample.
  // The events of each continuation, as long as it may turn out not to be among the best.
  std::vector<std::vector<TokenEvent>> held_;
  std::vector<ContinuationEnd> ends_;  // Ends of continuations whose last event was sent.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATE_TASK_H_
