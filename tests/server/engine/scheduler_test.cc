// PlanStep against its rule written out token by token, and its promises over whole workloads:
// budget kept, first come first served, progress, nobody starves.
#include "server/engine/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <vector>

namespace structattn {
namespace {

// Hands out the step's tokens one at a time to the first who may have one.
StepPlan NaivePlan(const ServingLoads& loads, const SchedulerLimits& limits) {
  const int32_t running = static_cast<int32_t>(loads.running.size());
  std::vector<int32_t> wants;  // Prompt tokens that each still wants, waiting behind running.
  for (const RunningLoad& load : loads.running) wants.push_back(load.prompt_tokens_left);
  for (const WaitingLoad& load : loads.waiting) wants.push_back(load.prompt_tokens);
  StepPlan plan;
  int32_t used = 0;
  for (int32_t i = 0; i < running; ++i) {
    if (wants[i] == 0 && used < limits.max_step_tokens) {
      plan.chunks.push_back({i, 1});
      ++used;
    }
  }
  int32_t free_blocks = loads.free_blocks;
  for (int32_t i = 0; i < static_cast<int32_t>(wants.size()); ++i) {
    if (wants[i] == 0) continue;
    if (used == limits.max_step_tokens) break;
    if (i >= running) {
      const int32_t blocks = loads.waiting[i - running].blocks;
      if (blocks > free_blocks) break;
      if (i >= limits.max_running_sequences || i >= limits.max_step_tokens) break;
      free_blocks -= blocks;
      ++plan.admitted;
    }
    plan.chunks.push_back({i, 0});
    while (wants[i] > 0 && used < limits.max_step_tokens) {
      ++plan.chunks.back().tokens;
      --wants[i];
      ++used;
    }
  }
  return plan;
}

TEST(SchedulerTest, DecodesComeFirstAndPromptsShareTheRest) {
  const std::vector<RunningLoad> running = {{10}, {0}, {0}, {3}};
  const std::vector<WaitingLoad> waiting = {{5, 2}, {5, 2}};
  StepPlan plan;
  PlanStep({running, waiting, 3}, {.max_step_tokens = 18, .max_running_sequences = 8}, &plan);
  EXPECT_EQ(plan.admitted, 1);  // The second finds one block free, not two.
  const std::vector<Chunk> expected = {{1, 1}, {2, 1}, {0, 10}, {3, 3}, {4, 3}};
  EXPECT_EQ(plan.chunks, expected);
}

TEST(SchedulerTest, ASmallRequestDoesNotOvertakeALargeOne) {
  const std::vector<WaitingLoad> waiting = {{5, 9}, {5, 1}};
  const std::vector<RunningLoad> running = {{0}};
  StepPlan plan;
  PlanStep({running, waiting, 8}, {.max_step_tokens = 64, .max_running_sequences = 8}, &plan);
  EXPECT_EQ(plan.admitted, 0);
}

TEST(SchedulerTest, EqualsTheNaivePlanOnRandomLoads) {
  StepPlan plan;
  for (uint32_t seed = 0; seed < 20000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const SchedulerLimits limits{.max_step_tokens = static_cast<int32_t>(1 + random() % 40),
                                 .max_running_sequences = static_cast<int32_t>(1 + random() % 10)};
    const int32_t most = std::min(limits.max_step_tokens, limits.max_running_sequences);
    std::vector<RunningLoad> running(random() % (most + 1));
    for (RunningLoad& load : running) {
      load.prompt_tokens_left = random() % 2 == 0 ? 0 : static_cast<int32_t>(random() % 30);
    }
    std::vector<WaitingLoad> waiting(random() % 6);
    for (WaitingLoad& load : waiting) {
      load = {static_cast<int32_t>(1 + random() % 30), static_cast<int32_t>(1 + random() % 8)};
    }
    const ServingLoads loads{running, waiting, static_cast<int32_t>(random() % 20)};
    PlanStep(loads, limits, &plan);
    const StepPlan expected = NaivePlan(loads, limits);
    ASSERT_EQ(plan.admitted, expected.admitted);
    ASSERT_EQ(plan.chunks, expected.chunks);
  }
}

struct Job {
  int id;
  int32_t prompt_left;
  int32_t decode_left;
  int32_t blocks;
};

// Runs jobs to their end and checks every promise on the way.
class Simulation {
 public:
  Simulation(uint32_t seed, const SchedulerLimits& limits, int32_t blocks)
      : random_(seed), limits_(limits), free_blocks_(blocks), blocks_(blocks) {}

  void Submit() {
    waiting_.push_back({next_id_++, static_cast<int32_t>(1 + random_() % 100),
                        static_cast<int32_t>(1 + random_() % 20),
                        static_cast<int32_t>(1 + random_() % blocks_)});
  }
  bool idle() const { return waiting_.empty() && running_.empty(); }

  void Step() {
    std::vector<RunningLoad> running;
    for (const Job& job : running_) running.push_back({job.prompt_left});
    std::vector<WaitingLoad> waiting;
    for (const Job& job : waiting_) waiting.push_back({job.prompt_left, job.blocks});
    PlanStep({running, waiting, free_blocks_}, limits_, &plan_);

    ASSERT_FALSE(plan_.chunks.empty()) << "no progress";
    const size_t was_running = running_.size();
    for (int32_t i = 0; i < plan_.admitted; ++i) {
      ASSERT_EQ(waiting_.front().id, next_admitted_++) << "not first come, first served";
      free_blocks_ -= waiting_.front().blocks;
      running_.push_back(waiting_.front());
      waiting_.pop_front();
    }
    ASSERT_GE(free_blocks_, 0);
    ASSERT_LE(running_.size(), static_cast<size_t>(limits_.max_running_sequences));
    Apply(was_running);
  }

 private:
  void Apply(size_t was_running) {
    int32_t tokens = 0;
    std::vector<int32_t> given(running_.size(), 0);
    for (const Chunk& chunk : plan_.chunks) {
      tokens += chunk.tokens;
      given[chunk.sequence] += chunk.tokens;
    }
    ASSERT_LE(tokens, limits_.max_step_tokens);
    bool oldest_prompt = true;
    for (size_t i = 0; i < running_.size(); ++i) {
      Job& job = running_[i];
      if (i >= was_running) {
        ASSERT_GT(given[i], 0) << "started without work";
      }
      if (job.prompt_left == 0) {
        ASSERT_EQ(given[i], 1) << "a decode was held up";
        --job.decode_left;
      } else {
        if (oldest_prompt) {
          ASSERT_GT(given[i], 0) << "the oldest prompt starves";
        }
        oldest_prompt = false;
        ASSERT_LE(given[i], job.prompt_left);
        job.prompt_left -= given[i];
      }
    }
    std::erase_if(running_, [this](const Job& job) {
      if (job.decode_left > 0) return false;
      free_blocks_ += job.blocks;
      return true;
    });
  }

  std::mt19937 random_;
  const SchedulerLimits limits_;
  int32_t free_blocks_;
  const int32_t blocks_;
  int next_id_ = 0;
  int next_admitted_ = 0;
  std::vector<Job> running_;
  std::deque<Job> waiting_;
  StepPlan plan_;
};

TEST(SchedulerTest, KeepsItsPromisesOverWholeWorkloads) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const SchedulerLimits limits{.max_step_tokens = static_cast<int32_t>(1 + random() % 60),
                                 .max_running_sequences = static_cast<int32_t>(1 + random() % 9)};
    Simulation simulation(seed, limits, static_cast<int32_t>(1 + random() % 30));
    int to_submit = 40;
    int steps = 0;
    while (to_submit > 0 || !simulation.idle()) {
      while (to_submit > 0 && (simulation.idle() || random() % 3 == 0)) {
        simulation.Submit();
        --to_submit;
      }
      simulation.Step();
      if (HasFatalFailure()) return;
      ASSERT_LT(++steps, 40 * (100 + 20) + 1) << "slower than one token a step";
    }
  }
}

}  // namespace
}  // namespace structattn
