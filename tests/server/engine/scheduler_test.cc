// Scheduler, SequenceBlocks and BlockPool together, over whole workloads in a memory that holds
// closures instead of numbers: every token finds what the definition says, no block is written
// while another sequence owns it, the budget is kept, first come first served, everybody ends, and
// nothing is left behind.
#include "server/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "kernels/attention/placement.h"
#include "tests/server/engine/cache/closures.h"

namespace structattn::engine {
namespace {

using closures::Closures;
using closures::Tokens;

constexpr int32_t kBlockSize = 4;
constexpr int kUnwritten = -1;

struct Job {
  Job(int number, Tokens prompt, int generated, const CachePolicy& policy)
      : id(number),
        tokens(std::move(prompt)),
        prompt_tokens(tokens.structure.size()),
        generated_left(generated),
        blocks(kBlockSize, policy) {
    TakeIn();
  }

  void TakeIn() {
    placement.Extend(tokens.structure);
    blocks.Extend(tokens.view());
  }
  // Tokens that are not computed are missing in the memory that `slots` shows.
  int32_t SlotOf(int token) const {
    const int32_t slot = placement.SlotOf(token);
    return blocks.table()[slot / kBlockSize] * kBlockSize + slot % kBlockSize;
  }

  int id;
  Tokens tokens;
  int32_t prompt_tokens;
  int generated_left;
  Placement placement{kBlockSize};
  SequenceBlocks blocks;
};

// Runs jobs to their end and checks every promise on the way.
class Simulation {
 public:
  Simulation(uint32_t seed, const SchedulerLimits& limits, int32_t blocks)
      : random_(seed),
        limits_(limits),
        scheduler_(limits),
        pool_(blocks),
        memory_(blocks * kBlockSize, kUnwritten) {}

  void Submit(Tokens prompt, int generated, const CachePolicy& policy = {}) {
    waiting_.push_back(std::make_unique<Job>(next_id_++, std::move(prompt), generated, policy));
  }
  // One of few prompts, so that much is shared; never more than the pool holds.
  void SubmitRandom();

  bool idle() const { return waiting_.empty() && running_.empty(); }
  int running() const { return static_cast<int>(running_.size()); }
  int64_t computed() const { return computed_; }
  int preemptions() const { return preemptions_; }
  int finished() const { return finished_; }
  const std::vector<int32_t>& reused() const { return reused_; }
  BlockPool& pool() { return pool_; }

  void Step();
  void CancelRandom();
  void RunUntilIdle() {
    for (int steps = 0; !idle(); ++steps) {
      ASSERT_LT(steps, 200000) << "live-lock";
      ASSERT_NO_FATAL_FAILURE(Step());
    }
    ASSERT_EQ(pool_.available(), pool_.blocks());
  }

 private:
  void Plan();
  void CheckOrder() const;
  void Compute(const Job& job, const TokenRange& range);
  void EndIfDone(std::unique_ptr<Job>* job);

  std::mt19937 random_;
  SchedulerLimits limits_;
  Scheduler scheduler_;
  BlockPool pool_;
  std::vector<int> memory_;  // The closure in each slot.
  Closures closures_;
  std::vector<std::unique_ptr<Job>> running_;
  std::deque<std::unique_ptr<Job>> waiting_;
  const StepPlan* plan_ = nullptr;
  int next_id_ = 0;
  int64_t computed_ = 0;
  int preemptions_ = 0;
  int finished_ = 0;
  std::vector<int32_t> reused_;  // Tokens of each finished job.
};

void Simulation::SubmitRandom() {
  RuleTable rule = RuleTable::Preset(static_cast<RulePreset>(random_() % 4));
  Tokens prompt = {.structure = Structure(rule, static_cast<PositionPolicy>(random_() % 2))};
  const int most = pool_.blocks() * kBlockSize / 2;
  for (int runs = 1 + static_cast<int>(random_() % 4); runs > 0; --runs) {
    const int group = static_cast<int>(random_() % 3);
    const int32_t first = static_cast<int32_t>(random_() % 2);
    const int length = 1 + static_cast<int>(random_() % 11);
    for (int i = 0; i < length && prompt.structure.size() + 4 * runs < most; ++i) {
      prompt.Append(group, first + i);
    }
  }
  if (prompt.structure.size() == 0) prompt.Append(0, 1);
  Placement placement(kBlockSize);
  placement.Extend(prompt.structure);
  const int room =
      pool_.blocks() * kBlockSize - kBlockSize - placement.SlotsOf(prompt.structure.size());
  const int generated = room <= 1 ? 1 : 1 + static_cast<int>(random_() % std::min(room, 30));
  Submit(std::move(prompt), generated,
         {.bypass = random_() % 8 == 0, .salt = random_() % 4 == 0 ? "other" : ""});
}

void Simulation::Plan() {
  std::vector<SequenceBlocks*> running;
  for (const auto& job : running_) running.push_back(&job->blocks);
  std::vector<SequenceBlocks*> waiting;
  for (const auto& job : waiting_) waiting.push_back(&job->blocks);
  plan_ = &scheduler_.PlanStep({.running = running, .waiting = waiting, .pool = &pool_});
  ASSERT_LT(plan_->preempted, std::max<int32_t>(1, static_cast<int32_t>(running.size())));
  preemptions_ += plan_->preempted;
  for (int32_t i = 0; i < plan_->preempted; ++i) {
    ASSERT_TRUE(running_.back()->blocks.table().empty());
    waiting_.push_front(std::move(running_.back()));
    running_.pop_back();
  }
  for (int32_t i = 0; i < plan_->admitted; ++i) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  ASSERT_LE(static_cast<int32_t>(running_.size()), limits_.max_running_sequences);
}

// All run and wait in order of arrival, whichever of them was preempted in between.
void Simulation::CheckOrder() const {
  int last = -1;
  for (const auto& job : running_) {
    ASSERT_GT(job->id, last);
    last = job->id;
  }
  for (const auto& job : waiting_) {
    ASSERT_GT(job->id, last);
    last = job->id;
  }
}

void Simulation::Compute(const Job& job, const TokenRange& range) {
  for (int32_t i = range.begin; i < range.end; ++i) {
    const int32_t slot = job.SlotOf(i);
    ASSERT_EQ(pool_.owners(slot / kBlockSize), 1) << "written while shared";
    memory_[slot] = closures_.Number(job.tokens, i, [&](int j) { return memory_[job.SlotOf(j)]; });
  }
}

void Simulation::EndIfDone(std::unique_ptr<Job>* job) {
  if ((*job)->generated_left-- > 0) {
    const int32_t id = static_cast<int32_t>(random_() % 3);
    (*job)->tokens.Append(0, id);
    (*job)->TakeIn();
    return;
  }
  int32_t reused = 0;
  for (const TokenRange& range : (*job)->blocks.reused()) reused += range.end - range.begin;
  reused_.push_back(reused);
  const std::vector<int> expected = closures_.NumberAll((*job)->tokens);
  for (int i = 0; i < (*job)->tokens.structure.size(); ++i) {
    ASSERT_EQ(memory_[(*job)->SlotOf(i)], expected[i]) << "token " << i;
  }
  (*job)->blocks.Release(&pool_);
  ++finished_;
  job->reset();
}

void Simulation::Step() {
  ASSERT_NO_FATAL_FAILURE(Plan());
  ASSERT_NO_FATAL_FAILURE(CheckOrder());
  ASSERT_FALSE(plan_->chunks.empty()) << "no progress";
  EXPECT_EQ(plan_->chunks[0].sequence, 0) << "the oldest must progress";
  int32_t tokens = 0;
  for (const Chunk& chunk : plan_->chunks) {
    std::unique_ptr<Job>& job = running_[chunk.sequence];
    ASSERT_LT(chunk.range_begin, chunk.range_end);
    for (int32_t r = chunk.range_begin; r < chunk.range_end; ++r) {
      tokens += plan_->ranges[r].end - plan_->ranges[r].begin;
      ASSERT_NO_FATAL_FAILURE(Compute(*job, plan_->ranges[r]));
    }
    ASSERT_LE(plan_->ranges[chunk.range_end - 1].end, job->blocks.num_scheduled());
  }
  ASSERT_LE(tokens, limits_.max_step_tokens);
  computed_ += tokens;
  for (const Chunk& chunk : plan_->chunks) {
    std::unique_ptr<Job>& job = running_[chunk.sequence];
    job->blocks.Commit(&pool_);
    if (job->blocks.left() > 0) continue;
    ASSERT_NO_FATAL_FAILURE(EndIfDone(&job));
  }
  std::erase(running_, nullptr);
}

void Simulation::CancelRandom() {
  const size_t index = random_() % (running_.size() + waiting_.size() + 1);
  if (index < running_.size()) {
    running_[index]->blocks.Release(&pool_);
    running_.erase(running_.begin() + index);
  } else if (index - running_.size() < waiting_.size()) {
    waiting_.erase(waiting_.begin() + (index - running_.size()));
  }
}

Tokens PlainPrompt(std::string_view text) {
  Tokens prompt = {
      .structure = Structure(RuleTable::Preset(RulePreset::kCausal), PositionPolicy::kSequential)};
  prompt.AppendText(0, text);
  return prompt;
}

TEST(SchedulerTest, EveryTokenFindsItsClosureUnderAnyLoad) {
  int preemptions = 0;
  int64_t reused = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const SchedulerLimits limits{.max_step_tokens = static_cast<int32_t>(1 + random() % 60),
                                 .max_running_sequences = static_cast<int32_t>(1 + random() % 10)};
    Simulation simulation(seed, limits, 8 + static_cast<int32_t>(random() % 40));
    for (int i = 0; i < 60; ++i) {
      simulation.SubmitRandom();
      for (int steps = static_cast<int>(random() % 6); steps > 0 && !simulation.idle(); --steps) {
        ASSERT_NO_FATAL_FAILURE(simulation.Step());
      }
    }
    ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
    EXPECT_EQ(simulation.finished(), 60);
    preemptions += simulation.preemptions();
    for (const int32_t tokens : simulation.reused()) reused += tokens;
  }
  EXPECT_GT(preemptions, 500);
  EXPECT_GT(reused, 10000);
}

TEST(SchedulerTest, TwoHundredRequestsEndInAPoolThatHoldsOne) {
  Simulation simulation(1, {.max_step_tokens = 64, .max_running_sequences = 16}, 8);
  for (int i = 0; i < 200; ++i) {
    simulation.Submit(PlainPrompt(std::string("prompt ") + std::to_string(i)), 20);
  }
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
  EXPECT_EQ(simulation.finished(), 200);
}

TEST(SchedulerTest, CancelsLeaveThePoolAsItWas) {
  Simulation simulation(2, {.max_step_tokens = 30, .max_running_sequences = 6}, 30);
  for (int i = 0; i < 10000; ++i) {
    simulation.SubmitRandom();
    if (i % 3 != 0) {
      ASSERT_NO_FATAL_FAILURE(simulation.Step());
    }
    simulation.CancelRandom();
  }
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
}

TEST(SchedulerTest, RequestsThatArriveTogetherComputeTheirPrefixOnce) {
  Simulation simulation(3, {.max_step_tokens = 200, .max_running_sequences = 16}, 1000);
  const std::string prefix(80, 'x');
  for (int i = 0; i < 16; ++i) simulation.Submit(PlainPrompt(prefix + "q" + std::to_string(i)), 0);
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
  EXPECT_EQ(simulation.reused()[0], 0);
  for (size_t i = 1; i < 16; ++i) EXPECT_EQ(simulation.reused()[i], 80);
  EXPECT_LE(simulation.computed(), 80 + 16 * 3);
}

TEST(SchedulerTest, WhatLiesBetweenCachedBlocksIsComputedInOneStep) {
  const auto prompt = [](std::string_view instruction, std::string_view cue) {
    Tokens tokens = {.structure = Structure(RuleTable::Preset(RulePreset::kIsolated),
                                            PositionPolicy::kSequential)};
    tokens.AppendText(0, instruction);
    tokens.AppendText(1, "question");
    tokens.AppendText(2, "another");
    tokens.AppendText(0, cue);
    return tokens;
  };
  Simulation simulation(4, {.max_step_tokens = 100, .max_running_sequences = 4}, 100);
  simulation.Submit(prompt("first one", "answer:"), 0);
  simulation.Submit(prompt("other one", "answer:"), 0);
  ASSERT_NO_FATAL_FAILURE(simulation.Step());
  EXPECT_EQ(simulation.finished(), 1);
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
  EXPECT_EQ(simulation.reused()[1], 15);  // Both questions.
}

TEST(SchedulerTest, ABypassNeitherReadsNorPublishes) {
  Simulation simulation(5, {.max_step_tokens = 100, .max_running_sequences = 4}, 100);
  for (const bool bypass : {true, false, true, false}) {
    simulation.Submit(PlainPrompt("the same prompt"), 0, {.bypass = bypass, .salt = ""});
    ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
  }
  EXPECT_EQ(simulation.reused(), (std::vector<int32_t>{0, 0, 0, 12}));
}

TEST(SchedulerTest, APreemptedSequenceFindsItsOwnBlocksAgain) {
  Simulation simulation(6, {.max_step_tokens = 100, .max_running_sequences = 4}, 12);
  simulation.Submit(PlainPrompt("abcdefghijkl"), 30);
  simulation.Submit(PlainPrompt("mnopqrstuvwx"), 25);
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
  EXPECT_EQ(simulation.preemptions(), 1);
  EXPECT_LT(simulation.computed(), 42 + 37 + 24);  // Not all of the 24 it had, a second time.
  EXPECT_EQ(simulation.reused(), (std::vector<int32_t>{0, 0}));  // Its own: computed, not reused.
}

TEST(SchedulerTest, ASmallRequestDoesNotOvertakeALargeOne) {
  Simulation simulation(7, {.max_step_tokens = 100, .max_running_sequences = 8}, 10);
  simulation.Submit(PlainPrompt(std::string(24, 'a')), 4);
  simulation.Submit(PlainPrompt(std::string(28, 'b')), 1);
  simulation.Submit(PlainPrompt("c"), 1);
  ASSERT_NO_FATAL_FAILURE(simulation.Step());
  EXPECT_EQ(simulation.running(), 1);
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
}

TEST(SchedulerTest, DecodesAreNotHeldUpByPrompts) {
  Simulation simulation(8, {.max_step_tokens = 8, .max_running_sequences = 8}, 100);
  simulation.Submit(PlainPrompt("ab"), 12);
  ASSERT_NO_FATAL_FAILURE(simulation.Step());
  simulation.Submit(PlainPrompt(std::string(200, 'x')), 1);
  for (int step = 0; step < 12; ++step) ASSERT_NO_FATAL_FAILURE(simulation.Step());
  EXPECT_EQ(simulation.finished(), 1);
  ASSERT_NO_FATAL_FAILURE(simulation.RunUntilIdle());
}

}  // namespace
}  // namespace structattn::engine
