// A Score request while it is served: its prompts, then its continuations, whose tokens are all
// known and computed at once, each in a sequence that shares its prompt's blocks. Draws nothing and
// keeps no logits.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_SCORE_TASK_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_SCORE_TASK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/engine/sampling/sampling_params.h"
#include "server/engine/sampling/score_logits.h"
#include "server/engine/task/score_request.h"
#include "server/engine/task/task.h"

namespace structattn::engine {

class ScoreTask final : public Task {
 public:
  // The costly part of a request: for any thread.
  ScoreTask(uint64_t ticket, ScoreRequest request, std::shared_ptr<ScoreSink> sink,
            const SequenceModel& model);

  absl::Status CheckFits(int32_t kv_blocks) const override;
  Sequences Begin() override;
  absl::Status Read(const LogitsRow& row, Sampler* sampler) override;
  void Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) override;
  void Stop(FinishReason reason) override;
  void Fail(const absl::Status& status) override;

 private:
  void ReadPrompt(const LogitsRow& row, const ScoredRow& scored);
  void Extend(Sequence* sequence, int32_t continuation) const;
  void FinishOne();

  const ScoreRequest request_;
  std::shared_ptr<ScoreSink> sink_;
  Sequences prompts_;       // One for each of the request's, until Begin.
  ScoreEvent event_;        // Grows with every row that is read.
  int32_t unfinished_ = 0;  // Sequences begun or still to come.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_SCORE_TASK_H_
