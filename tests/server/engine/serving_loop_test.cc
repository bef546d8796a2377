// The serving loop, step by step on one thread: the right tokens under any mix, limits kept, and
// nothing left behind by cancels, deadlines and failures.
#include "server/engine/serving_loop.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/server/engine/loop_test.h"

namespace structattn::engine {
namespace {

using fake::FakeModel;
using fake::RecordingSink;

constexpr int32_t kBlocks = 40;  // 640 tokens.

class ServingLoopTest : public LoopTest {
 protected:
  void MakeLoop(const SchedulerLimits& limits, int32_t blocks = kBlocks) {
    LoopTest::MakeLoop(limits, blocks);
  }
};

void ExpectSame(const RecordingSink& sink, const fake::Expected& expected) {
  ASSERT_TRUE(sink.error.ok()) << sink.error.message();
  ASSERT_TRUE(sink.finish.has_value());
  EXPECT_EQ(sink.token_ids, expected.token_ids);
  EXPECT_EQ(sink.logprobs, expected.logprobs);  // The same bits.
  EXPECT_EQ(sink.text, expected.text);
  EXPECT_EQ(sink.finish->reason, expected.reason);
  EXPECT_EQ(sink.finish->generated_tokens, static_cast<int32_t>(expected.token_ids.size()));
  EXPECT_EQ(sink.events_after_end, 0);
}

TEST_F(ServingLoopTest, MixedRequestsGetTheTokensOfTheDefinition) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const SchedulerLimits limits{.max_step_tokens = static_cast<int32_t>(1 + random() % 70),
                                 .max_running_sequences = static_cast<int32_t>(1 + random() % 12)};
    MakeLoop(limits);
    model_.decoder->most_tokens = 0;
    std::vector<GenerateRequest> requests;
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 20; ++i) {
      requests.push_back(fake::RandomRequest(&random, 90, 30));
      sinks.push_back(Add(requests.back()));
      for (int steps = static_cast<int>(random() % 4); steps > 0; --steps) Step();
      ASSERT_LE(loop_->counts().running, limits.max_running_sequences);
    }
    RunUntilIdle();
    EXPECT_LE(model_.decoder->most_tokens, limits.max_step_tokens);
    EXPECT_EQ(model_.decoder->unwritten_keys_read, 0);
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(i);
      ExpectSame(*sinks[i], fake::ExpectedResult(requests[i], 4096));
      EXPECT_EQ(sinks[i]->top_logprobs.size(),
                requests[i].top_logprobs > 0 ? sinks[i]->token_ids.size() : 0u);
    }
  }
}

// Prompts with much in common, a pool that is too small for all who run, cancels in between.
TEST_F(ServingLoopTest, SharingAndPreemptionChangeNoAnswer) {
  int64_t cached_tokens = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    model_.decoder->tiling_value = {.tile_tokens = 8, .split_kv_branches = seed % 2 == 0 ? 0 : 4};
    MakeLoop({.max_step_tokens = static_cast<int32_t>(10 + random() % 200),
              .max_running_sequences = static_cast<int32_t>(1 + random() % 12)},
             /*blocks=*/22);  // The largest request takes 20.
    std::vector<std::pair<GenerateRequest, std::shared_ptr<RecordingSink>>> requests;
    for (int i = 0; i < 40; ++i) {
      GenerateRequest request = fake::RandomRequest(&random, 1, 100);
      request.prompt = fake::FamiliarPrompt(&random);
      request.cache = {.bypass = random() % 8 == 0, .salt = random() % 4 == 0 ? "other" : ""};
      requests.emplace_back(request, Add(request));
      for (int steps = static_cast<int>(random() % 8); steps > 0; --steps) Step();
      if (random() % 10 == 0) loop_->Cancel(next_ticket_ - 1 - random() % 5);
    }
    RunUntilIdle();
    EXPECT_EQ(model_.decoder->unwritten_keys_read, 0);
    for (const auto& [request, sink] : requests) {
      if (sink->finish->reason == FinishReason::kCancelled) continue;
      ExpectSame(*sink, fake::ExpectedResult(request, 4096));
      EXPECT_TRUE(!request.cache.bypass || sink->finish->cached_tokens == 0);
      cached_tokens += sink->finish->cached_tokens;
    }
  }
  EXPECT_GT(cached_tokens, 5000);
  EXPECT_GT(preemptions_, 50);
}

TEST_F(ServingLoopTest, CachedTokensAreCountedBySegment) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(1, 1);
  request.prompt.structure =
      Structure(RuleTable::Preset(RulePreset::kIsolated), PositionPolicy::kSequential);
  request.prompt.token_ids.clear();
  request.prompt.segments.clear();
  request.prompt.segment_count = 4;  // The third one has no tokens.
  const auto append = [&](int segment, int group, int tokens) {
    for (int i = 0; i < tokens; ++i) {
      request.prompt.token_ids.push_back(10 * segment + i % 7);
      request.prompt.segments.push_back(segment);
      request.prompt.structure.Append(group);
    }
  };
  append(-1, 0, 1);  // As a tokenizer's special token.
  append(0, 0, 20);
  append(1, 1, 10);
  append(3, 0, 5);
  const auto first = Add(request);
  RunUntilIdle();
  EXPECT_EQ(first->finish->cached_tokens, 0);
  EXPECT_EQ(first->finish->cached_per_segment, std::vector<int32_t>({0, 0, 0, 0}));
  const auto again = Add(request);
  request.prompt.token_ids[3] ^= 1;  // Only the question does not see it.
  const auto other = Add(request);
  RunUntilIdle();
  EXPECT_EQ(again->finish->cached_tokens, 31);  // All but the block of the last token.
  EXPECT_EQ(again->finish->cached_per_segment, std::vector<int32_t>({20, 10, 0, 0}));
  EXPECT_EQ(other->finish->cached_per_segment, std::vector<int32_t>({0, 10, 0, 0}));
  EXPECT_EQ(again->logprobs, first->logprobs);
}

TEST_F(ServingLoopTest, TheContextCutsGenerationShort) {
  model_ = FakeModel(50);
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  const auto cut = Add(Plain(45, 100));
  const auto full = Add(Plain(50, 100));
  RunUntilIdle();
  EXPECT_EQ(cut->token_ids.size(), 5u);
  EXPECT_EQ(cut->finish->reason, FinishReason::kLength);
  EXPECT_EQ(full->token_ids.size(), 0u);
  EXPECT_EQ(full->finish->reason, FinishReason::kLength);
}

TEST_F(ServingLoopTest, RequestsWaitInOrderUntilBlocksAreFree) {
  MakeLoop({.max_step_tokens = 1000, .max_running_sequences = 8});
  const auto first = Add(Plain(400, 20));   // 27 of 40 blocks.
  const auto second = Add(Plain(300, 20));  // 20: must wait.
  const auto third = Add(Plain(10, 5));     // Would fit, but came later.
  Step();
  EXPECT_EQ(loop_->counts().running, 1);
  EXPECT_EQ(loop_->counts().waiting, 2);
  while (!first->done()) Step();
  EXPECT_TRUE(third->token_ids.empty());
  Step();
  EXPECT_EQ(loop_->counts().running, 2);
  RunUntilIdle();
  EXPECT_EQ(second->token_ids.size(), 20u);
  EXPECT_EQ(third->token_ids.size(), 5u);
}

TEST_F(ServingLoopTest, APastDeadlineInTheQueueIsNeverComputed) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(30, 10);
  request.deadline = absl::Now() - absl::Seconds(1);
  const auto sink = Add(std::move(request));
  Step();
  EXPECT_TRUE(loop_->idle());
  EXPECT_EQ(model_.decoder->steps, 0);
  EXPECT_EQ(sink->finish->reason, FinishReason::kDeadline);
  EXPECT_EQ(sink->finish->generated_tokens, 0);
  EXPECT_EQ(sink->finish->prefill, absl::ZeroDuration());
}

TEST_F(ServingLoopTest, ADeadlineEndsARunningRequestWithinOneStep) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(30, 500);
  request.deadline = absl::Now() + absl::Milliseconds(30);
  const auto sink = Add(std::move(request));
  model_.decoder->on_forward = [](const StepBatch&) { absl::SleepFor(absl::Milliseconds(10)); };
  RunUntilIdle();
  EXPECT_EQ(sink->finish->reason, FinishReason::kDeadline);
  EXPECT_LE(sink->token_ids.size(), 5u);
  EXPECT_EQ(static_cast<size_t>(sink->finish->generated_tokens), sink->token_ids.size());
}

TEST_F(ServingLoopTest, CancelFlushesHeldTextAndEndsAtOnce) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(30, 500);
  request.stopping.stop_strings = {std::string(200, 'a') + "b"};
  const auto sink = Add(std::move(request));
  for (int i = 0; i < 10; ++i) Step();
  loop_->Cancel(1);
  EXPECT_TRUE(loop_->idle());
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
  std::string text;
  for (int32_t id : sink->token_ids) text += fake::FakeTokenizer().TokenBytes(id);
  EXPECT_EQ(sink->text, text);
  loop_->Cancel(1);  // No effect.
  EXPECT_EQ(sink->events_after_end, 0);
}

TEST_F(ServingLoopTest, TenThousandCancelsLeaveThePoolAsItWas) {
  MakeLoop({.max_step_tokens = 48, .max_running_sequences = 6});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  uint64_t cancelled = 0;
  while (cancelled < 10000) {
    while (loop_->counts().waiting < 4) sinks.push_back(Add(fake::RandomRequest(&random_, 60, 20)));
    for (int steps = static_cast<int>(random_() % 3); steps > 0; --steps) Step();
    const uint64_t oldest = next_ticket_ > 12 ? next_ticket_ - 12 : 1;
    loop_->Cancel(oldest + random_() % 12);
    ++cancelled;
  }
  RunUntilIdle();
  int ended_by_cancel = 0;
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->finish.has_value());
    EXPECT_EQ(sink->events_after_end, 0);
    if (sink->finish->reason == FinishReason::kCancelled) ++ended_by_cancel;
  }
  EXPECT_GT(ended_by_cancel, 1000);
  // And it still computes the right thing, in whatever order the blocks are now.
  const GenerateRequest request = fake::RandomRequest(&random_, 90, 30);
  const auto sink = Add(request);
  RunUntilIdle();
  ExpectSame(*sink, fake::ExpectedResult(request, 4096));
  EXPECT_EQ(model_.decoder->unwritten_keys_read, 0);
}

TEST_F(ServingLoopTest, AFailingStepEndsItsRequestsAndTheLoopGoesOn) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest bad = Plain(10, 5);
  bad.prompt.token_ids[3] = fake::kThrowId;
  const auto failed = Add(std::move(bad));
  RunUntilIdle();
  EXPECT_EQ(failed->error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(failed->error.message(), "the model failed: broken on purpose");
  const GenerateRequest good = fake::RandomRequest(&random_, 50, 20);
  const auto sink = Add(good);
  RunUntilIdle();
  ExpectSame(*sink, fake::ExpectedResult(good, 4096));
}

TEST_F(ServingLoopTest, ADecoderLostForGoodIsSaidAndASurvivingOneIsNot) {
  for (const bool survives : {true, false}) {
    MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
    model_.decoder->survives_failure = survives;
    GenerateRequest bad = Plain(10, 5);
    bad.prompt.token_ids[3] = fake::kThrowId;
    const auto failed = Add(std::move(bad));
    EXPECT_FALSE(loop_->decoder_lost());
    RunUntilIdle();
    EXPECT_EQ(failed->error.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(loop_->decoder_lost(), !survives);
  }
}

TEST_F(ServingLoopTest, AnswersAreTheSameWhereTheDeviceSplitsKeys) {
  model_.decoder->tiling_value = {.tile_tokens = 8, .split_kv_branches = 4};
  MakeLoop({.max_step_tokens = 40, .max_running_sequences = 6});
  int64_t generated_tiles = 0;
  model_.decoder->on_forward = [&](const StepBatch& batch) {
    generated_tiles += static_cast<int64_t>(batch.work.generated.size());
  };
  std::vector<std::pair<GenerateRequest, std::shared_ptr<fake::RecordingSink>>> requests;
  for (int i = 0; i < 20; ++i) {
    const GenerateRequest request = fake::RandomRequest(&random_, 90, 30);
    requests.emplace_back(request, Add(request));
  }
  RunUntilIdle();
  for (const auto& [request, sink] : requests) {
    ExpectSame(*sink, fake::ExpectedResult(request, 4096));
  }
  EXPECT_GT(generated_tiles, 0);
}

TEST_F(ServingLoopTest, NanLogitsEndTheirRequestOnly) {
  MakeLoop({.max_step_tokens = 256, .max_running_sequences = 4});
  const GenerateRequest before = fake::RandomRequest(&random_, 50, 20);
  GenerateRequest bad = Plain(10, 5);
  bad.prompt.token_ids.back() = fake::kNanId;
  const GenerateRequest after = fake::RandomRequest(&random_, 50, 20);
  const auto before_sink = Add(before);
  const auto bad_sink = Add(std::move(bad));
  const auto after_sink = Add(after);
  RunUntilIdle();
  EXPECT_EQ(bad_sink->error.code(), absl::StatusCode::kInternal);
  ExpectSame(*before_sink, fake::ExpectedResult(before, 4096));
  ExpectSame(*after_sink, fake::ExpectedResult(after, 4096));
}

TEST_F(ServingLoopTest, TimesAddUp) {
  MakeLoop({.max_step_tokens = 8, .max_running_sequences = 1});
  model_.decoder->on_forward = [](const StepBatch&) { absl::SleepFor(absl::Milliseconds(5)); };
  GenerateRequest request = Plain(24, 4);  // 3 steps of prefill, then 3 more tokens.
  request.arrival = absl::Now() - absl::Milliseconds(50);
  const absl::Time arrival = request.arrival;
  const auto sink = Add(std::move(request));
  RunUntilIdle();
  const FinishEvent& finish = *sink->finish;
  EXPECT_GE(finish.queue, absl::Milliseconds(50));
  EXPECT_GE(finish.prefill, absl::Milliseconds(15));
  EXPECT_GE(finish.decode, absl::Milliseconds(15));
  EXPECT_LE(finish.queue + finish.prefill + finish.decode, absl::Now() - arrival);
  EXPECT_EQ(finish.prompt_tokens, 24);
  EXPECT_EQ(finish.generated_tokens, 4);
}

}  // namespace
}  // namespace structattn::engine
