// What tasks that generate have in common: the request, the one prompt that its continuations
// share, how they go on from it, what of it was cached, and the client that is sent the events.
// Chooses no token: that is the part of GenerateTask and FusionTask.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_GENERATING_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_GENERATING_TASK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/cache/block_pool.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/generation.h"
#include "server/engine/task/sequence.h"
#include "server/engine/task/task.h"

namespace structattn::engine {

class GeneratingTask : public Task {
 public:
  absl::Status CheckFits(int32_t kv_blocks) const final;
  absl::Status Read(const LogitsRow& row, Sampler* sampler) final;
  void Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) final;
  void Fail(const absl::Status& status) final;

 protected:
  // The request has branches, and a prompt of at least one token.
  GeneratingTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink);

  // Completes the construction: makes the prompt's sequence, from which one continuation in each of
  // these branches of the request will go on.
  void MakePrompt(std::vector<int32_t> branch_of_continuation, const SequenceModel& model);
  std::unique_ptr<Sequence> TakePrompt() { return std::move(prompt_); }

  const GenerateRequest& request() const { return request_; }
  const Branch& BranchOf(int32_t continuation) const {
    return request_.branches[branch_of_continuation_[continuation]];
  }
  void Send(TokenEvent event) { sink_->OnToken(std::move(event)); }
  // Ends the task; what the prompt and the time come to is filled in here.
  void Finish(FinishEvent event);

 private:
  // The generation whose tokens a continuation is given.
  virtual const Generation& GenerationOf(int32_t continuation) const = 0;
  // Takes in the logits of a continuation's next token.
  virtual absl::Status Take(int32_t continuation, std::span<const float> logits,
                            Sampler* sampler) = 0;
  // Follows when all continuations have taken in one row of logits.
  virtual absl::Status FinishRow(Sampler* sampler) = 0;

  void CountCached(const Sequence& prompt);
  void Continue(int32_t continuation, Sequence* sequence) const;

  const GenerateRequest request_;
  std::shared_ptr<EventSink> sink_;
  std::vector<int32_t> branch_of_continuation_;
  std::unique_ptr<Sequence> prompt_;  // From MakePrompt to TakePrompt.
  int32_t cached_tokens_ = 0;         // In the prompt, and by its segments.
  std::vector<int32_t> cached_per_segment_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_GENERATING_TASK_H_
