// Implements scheduler.h: one pass over the running, one over the queue.
#include "server/engine/scheduler.h"

#include <algorithm>

#include "kernels/check.h"

namespace structattn::engine {
namespace {

bool NeedsOneToken(const SequenceBlocks* sequence) { return sequence->left() == 1; }

}  // namespace

const StepPlan& Scheduler::PlanStep(const ServingState& state) {
  plan_.preempted = 0;
  plan_.admitted = 0;
  plan_.chunks.clear();
  plan_.ranges.clear();
  awaited_.clear();
  tokens_left_ = limits_.max_step_tokens;
  PlanRunning(state);
  if (plan_.preempted == 0) Admit(state);
  STRUCTATTN_CHECK(!plan_.chunks.empty() || state.running.size() + state.waiting.size() == 0);
  return plan_;
}

// Adds what `sequence` can compute with at most `tokens`; false when the pool ran out of blocks.
bool Scheduler::Extend(SequenceBlocks* sequence, int32_t tokens, BlockPool* pool) {
  PlanResources resources{.tokens = tokens, .pool = pool, .awaited = &awaited_};
  const bool enough_blocks = sequence->Plan(&resources, &plan_.ranges);
  tokens_left_ -= tokens - resources.tokens;
  return enough_blocks;
}

// Lets the last of the paused that holds blocks give them back; false when there is none.
bool Scheduler::ReleasePaused(const ServingState& state) {
  for (size_t i = state.paused.size(); i > 0; --i) {
    if (state.paused[i - 1]->table().empty()) continue;
    state.paused[i - 1]->Release(state.pool);
    return true;
  }
  return false;
}

void Scheduler::PlanRunning(const ServingState& state) {
  int32_t staying = static_cast<int32_t>(state.running.size());
  // Tokens kept back for those not scheduled yet that need one.
  int32_t kept = static_cast<int32_t>(std::ranges::count_if(state.running, NeedsOneToken));
  for (int32_t i = 0; i < staying; ++i) {
    SequenceBlocks* const sequence = state.running[i];
    if (NeedsOneToken(sequence)) --kept;
    const int32_t range_begin = static_cast<int32_t>(plan_.ranges.size());
    while (!Extend(sequence, tokens_left_ - kept, state.pool)) {
      if (ReleasePaused(state)) continue;
      if (i + 1 == staying) break;
      SequenceBlocks* const last = state.running[--staying];
      if (NeedsOneToken(last)) --kept;
      last->Release(state.pool);
      ++plan_.preempted;
    }
    AddChunk(i, range_begin);
  }
}

// The ranges added from range_begin on are of `sequence`; false when there are none.
bool Scheduler::AddChunk(int32_t sequence, int32_t range_begin) {
  const int32_t range_end = static_cast<int32_t>(plan_.ranges.size());
  if (range_begin == range_end) return false;
  plan_.chunks.push_back({sequence, range_begin, range_end});
  return true;
}

void Scheduler::Admit(const ServingState& state) {
  const int32_t most_running = std::min(limits_.max_running_sequences, limits_.max_step_tokens);
  int32_t running = static_cast<int32_t>(state.running.size());
  int32_t promised = 0;  // Blocks that the running sequences still miss.
  if (!state.waiting.empty()) {
    for (const SequenceBlocks* sequence : state.running) {
      promised += sequence->BlocksMissing(*state.pool);
    }
  }
  for (SequenceBlocks* sequence : state.waiting) {
    if (tokens_left_ == 0 || running >= most_running) break;
    const int32_t missing = sequence->BlocksMissing(*state.pool);
    if (running > 0 && missing + promised + running > state.pool->available()) break;
    const int32_t range_begin = static_cast<int32_t>(plan_.ranges.size());
    while (!Extend(sequence, tokens_left_, state.pool) && running == 0 && ReleasePaused(state)) {
    }
    if (!AddChunk(running, range_begin)) {
      sequence->Release(state.pool);
      break;
    }
    promised += sequence->BlocksMissing(*state.pool);
    ++running;
    ++plan_.admitted;
  }
}

}  // namespace structattn::engine
