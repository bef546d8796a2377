// A serving loop over the fake decoder, run step by step, that checks that nothing is left behind.
// The fixture of continuations_test and fusion_task_test.
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

class LoopTest : public ::testing::Test {
 protected:
  void MakeLoop(const SchedulerLimits& limits, int32_t blocks = 200) {
    blocks_ = blocks;
    loop_ = std::make_unique<ServingLoop>(model_.decoder, model_.decoder->MakeKv(blocks).blocks,
                                          limits);
  }

  SequenceModel Described() const {
    return {.tokenizer = model_.model->tokenizer.get(),
            .eos_token_ids = model_.model->config.eos_token_ids,
            .context_length = model_.model->config.context_length,
            .block_size = 16,
            .decode_tiles = model_.decoder->tiling_value.split_kv_branches > 0};
  }

  std::shared_ptr<fake::RecordingSink> Add(GenerateRequest request) {
    auto sink = std::make_shared<fake::RecordingSink>();
    const uint64_t ticket = next_ticket_++;
    if (request.fusion.has_value()) {
      Accept(std::make_unique<FusionTask>(ticket, std::move(request), sink, Described()));
    } else {
      Accept(std::make_unique<GenerateTask>(ticket, std::move(request), sink, Described()));
    }
    return sink;
  }
  std::shared_ptr<fake::RecordingScoreSink> Add(ScoreRequest request) {
    auto sink = std::make_shared<fake::RecordingScoreSink>();
    Accept(std::make_unique<ScoreTask>(next_ticket_++, std::move(request), sink, Described()));
    return sink;
  }
  void Accept(std::unique_ptr<Task> task) {
    ASSERT_TRUE(task->CheckFits(blocks_).ok()) << task->CheckFits(blocks_).message();
    loop_->Accept(std::move(task));
  }

  void Step() {
    const int waiting = loop_->waiting();
    loop_->Plan();
    preemptions_ += loop_->waiting() > waiting;
    loop_->Execute();
  }
  void RunUntilIdle() {
    for (int step = 0; !loop_->idle(); ++step) {
      ASSERT_LT(step, 100000) << "the loop does not end";
      Step();
    }
    EXPECT_EQ(loop_->running() + loop_->waiting() + loop_->paused(), 0);
    EXPECT_EQ(loop_->available_blocks(), blocks_);
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
  std::unique_ptr<ServingLoop> loop_;
  int32_t blocks_ = 0;
  int preemptions_ = 0;
  uint64_t next_ticket_ = 1;
  std::mt19937 random_{1};
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_TESTS_SERVER_ENGINE_LOOP_TEST_H_
