// A serving loop that a test runs step by step, over any decoder (LoopDriver); and over the fake
// one, with checks that nothing is left behind (LoopTest).
#ifndef STRUCTATTN_TESTS_SERVER_ENGINE_LOOP_TEST_H_
#define STRUCTATTN_TESTS_SERVER_ENGINE_LOOP_TEST_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <utility>

#include "server/engine/serving_loop.h"
#include "server/engine/task/fusion_task.h"
#include "server/engine/task/generate_task.h"
#include "server/engine/task/score_task.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine {

inline constexpr int64_t kContext = 4096;

class LoopDriver {
 protected:
  // What `described` points at outlives the loop.
  void MakeLoop(Decoder* decoder, const SequenceModel& described,
                const ServingLoopOptions& options) {
    described_ = described;
    loop_ = std::make_unique<ServingLoop>(decoder, options);
    kv_blocks_ = options.kv_blocks;
  }

  // Tickets count from 1.
  std::shared_ptr<fake::RecordingSink> Add(GenerateRequest request) {
    auto sink = std::make_shared<fake::RecordingSink>();
    const uint64_t ticket = next_ticket_++;
    if (request.fusion.has_value()) {
      Accept(std::make_unique<FusionTask>(ticket, std::move(request), sink, described_));
    } else {
      Accept(std::make_unique<GenerateTask>(ticket, std::move(request), sink, described_));
    }
    return sink;
  }
  std::shared_ptr<fake::RecordingScoreSink> Add(ScoreRequest request) {
    auto sink = std::make_shared<fake::RecordingScoreSink>();
    Accept(std::make_unique<ScoreTask>(next_ticket_++, std::move(request), sink, described_));
    return sink;
  }

  void Step() {
    const int waiting = loop_->counts().waiting;
    loop_->Plan();
    preemptions_ += loop_->counts().waiting > waiting;
    loop_->Execute();
  }

  void RunUntilIdle() {
    for (int step = 0; !loop_->idle(); ++step) {
      ASSERT_LT(step, 100000) << "the loop does not end";
      Step();
    }
    const LoopCounts counts = loop_->counts();
    EXPECT_EQ(counts.running + counts.waiting + counts.paused, 0);
    EXPECT_EQ(counts.available_blocks, kv_blocks_);
  }

  std::unique_ptr<ServingLoop> loop_;
  SequenceModel described_;  // What the requests that follow are served with.
  int32_t kv_blocks_ = 0;
  uint64_t next_ticket_ = 1;
  int64_t preemptions_ = 0;  // Steps with one.

 private:
  void Accept(std::unique_ptr<Task> task) {
    ASSERT_TRUE(task->CheckFits(kv_blocks_).ok()) << task->CheckFits(kv_blocks_).message();
    loop_->Accept(std::move(task));
  }
};

class LoopTest : public ::testing::Test, protected LoopDriver {
 protected:
  // The decoder's tiling is set before.
  void MakeLoop(const SchedulerLimits& limits, int32_t kv_blocks = 200,
                int64_t max_logits = ServingLoopOptions().max_logits) {
    const Model& model = *model_.model;
    LoopDriver::MakeLoop(model_.decoder,
                         {.tokenizer = model.tokenizer.get(),
                          .eos_token_ids = model.config.eos_token_ids,
                          .context_length = model.config.context_length,
                          .block_size = 16,
                          .decode_tiles = model_.decoder->tiling_value.split_kv_branches > 0},
                         {.kv_blocks = model_.decoder->MakeKv(kv_blocks).blocks,
                          .limits = limits,
                          .max_logits = max_logits});
  }

  void RunUntilIdle() {
    LoopDriver::RunUntilIdle();
    EXPECT_EQ(model_.decoder->unwritten_keys_read, 0);
  }

  // A prompt of one group with a request that is not stopped early.
  GenerateRequest Plain(int prompt_tokens, int max_tokens) {
    GenerateRequest request = fake::RandomRequest(&random_, 1, 1);
    request.prompt = fake::OneGroupPrompt(&random_, prompt_tokens);
    request.generated_group = 0;
    request.stopping = StoppingParams();
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    return request;
  }

  // Tokens that the decoder computes until idle.
  int64_t TokensComputed() {
    int64_t tokens = 0;
    model_.decoder->on_forward = [&tokens](const StepBatch& batch) { tokens += batch.tokens(); };
    RunUntilIdle();
    model_.decoder->on_forward = nullptr;
    return tokens;
  }

  fake::FakeModel model_{kContext};
  std::mt19937 random_{1};
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_TESTS_SERVER_ENGINE_LOOP_TEST_H_
