// Implements scheduler.h: one pass over the decodes, one over the prompts, one over the queue.
#include "server/engine/scheduler.h"

#include <algorithm>

namespace structattn {

void PlanStep(const ServingLoads& loads, const SchedulerLimits& limits, StepPlan* plan) {
  plan->admitted = 0;
  plan->chunks.clear();
  int32_t budget = limits.max_step_tokens;
  const int32_t running = static_cast<int32_t>(loads.running.size());
  for (int32_t i = 0; i < running && budget > 0; ++i) {
    if (loads.running[i].prompt_tokens_left > 0) continue;
    plan->chunks.push_back({i, 1});
    --budget;
  }
  for (int32_t i = 0; i < running && budget > 0; ++i) {
    if (loads.running[i].prompt_tokens_left == 0) continue;
    const int32_t tokens = std::min(loads.running[i].prompt_tokens_left, budget);
    plan->chunks.push_back({i, tokens});
    budget -= tokens;
  }
  const int32_t most_running = std::min(limits.max_running_sequences, limits.max_step_tokens);
  int32_t free_blocks = loads.free_blocks;
  for (const WaitingLoad& waiting : loads.waiting) {
    if (budget == 0 || running + plan->admitted >= most_running) break;
    if (waiting.blocks > free_blocks) break;  // Those behind it wait too: first come, first served.
    const int32_t tokens = std::min(waiting.prompt_tokens, budget);
    plan->chunks.push_back({running + plan->admitted, tokens});
    budget -= tokens;
    free_blocks -= waiting.blocks;
    ++plan->admitted;
  }
}

}  // namespace structattn
