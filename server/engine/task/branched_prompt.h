// The prompt that all continuations of a Generate request share: its one sequence, how branches go
// on from it, and what of it was cached.
// Samples nothing and emits nothing.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_BRANCHED_PROMPT_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_BRANCHED_PROMPT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/cache/block_pool.h"
#include "server/engine/prompt/branches.h"
#include "server/engine/task/generate_events.h"
#include "server/engine/task/generate_request.h"
#include "server/engine/task/generation.h"
#include "server/engine/task/sequence.h"
#include "server/engine/task/task.h"

namespace structattn::engine {

class BranchedPrompt {
 public:
  // Takes the prompt out of `request`, whose branches are set. Wanted are the logits from which
  // branches without a cue are predicted. So many `continuations` will follow.
  BranchedPrompt(Task* task, GenerateRequest* request, size_t continuations,
                 const SequenceModel& model);

  // Whether the branch with so many tokens behind its cue fits into so many blocks. Before Take.
  absl::Status CheckFits(const Branch& branch, int32_t max_tokens, int32_t kv_blocks) const;

  std::unique_ptr<Sequence> Take() { return std::move(sequence_); }

  // Of the sequence, while it is computed and when it is.
  void CountCached(const Sequence& prompt);

  // prompt_tokens, cached_tokens and cached_per_segment.
  FinishEvent Usage() const;

 private:
  const int32_t tokens_;
  const std::vector<int32_t> segments_;  // Of each token.
  std::unique_ptr<Sequence> sequence_;   // Until Take.
  int32_t cached_tokens_ = 0;
  std::vector<int32_t> cached_per_segment_;
};

// `count` sequences that go on from a computed prompt: the first is `prompt` itself, the others are
// added to `forks`.
std::vector<Sequence*> ShareOut(size_t count, Sequence* prompt, BlockPool* pool, Sequences* forks);

// Appends what comes next of a generation in `branch`: the token picked last, or first the cue.
void Extend(const Branch& branch, const Generation& generation, Sequence* sequence);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_BRANCHED_PROMPT_H_
