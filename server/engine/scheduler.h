// Decides what one step computes: who starts running, and how many tokens of whom. A pure function
// of the loads that it is shown: no torch, no clock, no state.
// Called once per step by server/engine/serving_loop.
#ifndef STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_
#define STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <span>
#include <vector>

namespace structattn {

// A running sequence, as far as the decision depends on it.
struct RunningLoad {
  int32_t prompt_tokens_left;  // Not computed yet; 0: it decodes one token.
};

// A sequence that waits to run.
struct WaitingLoad {
  int32_t prompt_tokens;  // >= 1.
  int32_t blocks;         // Reserved when it starts, for prompt and all it may generate.
};

// What the scheduler is shown: running in order of admission, waiting in order of arrival.
struct ServingLoads {
  std::span<const RunningLoad> running;
  std::span<const WaitingLoad> waiting;
  int32_t free_blocks;
};

struct SchedulerLimits {
  int32_t max_step_tokens;
  int32_t max_running_sequences;
};

// Tokens of one sequence in a step.
struct Chunk {
  int32_t sequence;  // Index into the running, followed by the newly admitted.
  int32_t tokens;    // >= 1.
  bool operator==(const Chunk&) const = default;
};

struct StepPlan {
  int32_t admitted = 0;  // The first `admitted` of the waiting start to run.
  std::vector<Chunk> chunks;
};

// The rule: every decoding sequence gets its token; what is left of max_step_tokens goes to prompts
// in order of arrival, in chunks; a waiting sequence starts, in order, when it gets a token in this
// step and its blocks are free. At most min(max_running_sequences, max_step_tokens) run, so decodes
// never take the whole step while a prompt is unfinished.
void PlanStep(const ServingLoads& loads, const SchedulerLimits& limits, StepPlan* plan);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_SCHEDULER_H_
