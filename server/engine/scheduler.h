// Decides what one step computes: which sequences start, which have to stop, and which tokens of
// each are computed; hands out the blocks for them. No torch, no clock: the same sequences and pool
// give the same plan.
#ifndef STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_
#define STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/engine/cache/block_pool.h"
#include "server/engine/cache/sequence_blocks.h"

namespace structattn::engine {

// What the scheduler plans for: running in order of admission, waiting in order of arrival. Each
// has a token that is not computed; each fits into the empty pool. Those that wait hold no blocks.
// Those that are paused have nothing to compute now, but hold blocks that they will go on from.
struct ServingState {
  std::span<SequenceBlocks* const> running;
  std::span<SequenceBlocks* const> waiting;
  std::span<SequenceBlocks* const> paused = {};
  BlockPool* pool;
};

struct SchedulerLimits {
  int32_t max_step_tokens = 0;
  int32_t max_running_sequences = 0;
};

// Tokens of one sequence in a step: ranges [range_begin, range_end) of the plan, ascending, what
// lies between them is in the pool already. At least one token.
struct Chunk {
  int32_t sequence;  // Index into the running that stay, followed by the newly admitted.
  int32_t range_begin;
  int32_t range_end;
};

struct StepPlan {
  int32_t preempted = 0;  // The last `preempted` of the running stop; they hold no blocks now.
  int32_t admitted = 0;   // The first `admitted` of the waiting start to run.
  std::vector<Chunk> chunks;
  std::vector<TokenRange> ranges;
};

// The rule, in order of admission: a sequence with one token left gets it; what these leave of
// max_step_tokens goes to prompts, in chunks. When the pool has no block, those that are paused
// give back theirs, the last one first; then the sequence admitted last gives back all of its
// blocks and waits again, first in the queue; the one admitted first never does, so it ends, or is
// paused. Without preemption a waiting sequence starts, in order, when it gets a token in this step
// and the blocks that it misses are there, besides those that running prompts will take and one for
// each that runs. At most min(max_running_sequences, max_step_tokens) run, so that decodes never
// take the whole step while a prompt is unfinished.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits) : limits_(limits) {}

  // Valid until the next call. Has a chunk whenever there is a running or waiting sequence.
  const StepPlan& PlanStep(const ServingState& state);

 private:
  void PlanRunning(const ServingState& state);
  void Admit(const ServingState& state);
  bool Extend(SequenceBlocks* sequence, int32_t tokens, BlockPool* pool);
  bool AddChunk(int32_t sequence, int32_t range_begin);
  static bool ReleasePaused(const ServingState& state);

  const SchedulerLimits limits_;
  StepPlan plan_;
  int32_t tokens_left_ = 0;  // What is left of max_step_tokens.
  AwaitedKeys awaited_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_
