// The engine with its thread: requests from many threads get the answers they get alone; limits,
// cancel, deadline, drain and destruction. Built with the thread sanitizer as well.
#include "server/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "server/engine/field_error.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using fake::FakeModel;
using fake::RecordingSink;

// Stops the decoder at the start of a step until opened; gives up after a while, so that a failed
// test ends.
class Gate {
 public:
  void Wait() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + absl::Seconds(20)),
                        [this] { return open_; });
  }
  void WaitForArrival() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return arrived_ > 0; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = false;
};

class EngineTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> MakeEngine(const EngineOptions& options, int32_t blocks = 64) {
    return std::make_unique<Engine>(model_.model.get(), model_.decoder->MakeKv(blocks), options);
  }

  static GenerateRequest Plain(int prompt_tokens, int max_tokens) {
    std::mt19937 random(prompt_tokens);
    GenerateRequest request{.request_id = "",
                            .prompt = fake::OneGroupPrompt(&random, prompt_tokens),
                            .sampling = {},
                            .stopping = {}};
    request.sampling.logit_bias = {{fake::kThrowId, -1000.0f}, {fake::kNanId, -1000.0f}};
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    return request;
  }

  void HoldSteps() {
    model_.decoder->on_forward = [this](const StepBatch&) { gate_.Wait(); };
  }

  Gate gate_;
  FakeModel model_;
};

TEST_F(EngineTest, TwoHundredMixedRequestsFromManyThreadsAnswerAsAlone) {
  std::mt19937 random(42);
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 200; ++i) requests.push_back(fake::RandomRequest(&random, 80, 25));

  std::vector<std::shared_ptr<RecordingSink>> alone;
  {
    const auto engine = MakeEngine({.max_running_sequences = 1});
    for (const GenerateRequest& request : requests) {
      alone.push_back(std::make_shared<RecordingSink>());
      ASSERT_TRUE(engine->Submit(request, alone.back()).ok());
      alone.back()->WaitUntilDone();
    }
  }
  std::vector<std::shared_ptr<RecordingSink>> together(requests.size());
  const auto engine = MakeEngine({.max_running_sequences = 16, .max_step_tokens = 40});
  std::vector<std::thread> clients;
  for (size_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (size_t i = client; i < requests.size(); i += 8) {
        together[i] = std::make_shared<RecordingSink>();
        if (!engine->Submit(requests[i], together[i]).ok())
          together[i]->OnError(absl::AbortedError(""));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    together[i]->WaitUntilDone();
    ASSERT_TRUE(together[i]->finish.has_value()) << together[i]->error.message();
    EXPECT_EQ(together[i]->token_ids, alone[i]->token_ids);
    EXPECT_EQ(together[i]->logprobs, alone[i]->logprobs);
    EXPECT_EQ(together[i]->text, alone[i]->text);
    EXPECT_EQ(together[i]->finish->reason, alone[i]->finish->reason);
    const fake::Expected expected = fake::ExpectedResult(requests[i], 4096);
    EXPECT_EQ(alone[i]->token_ids, expected.token_ids);
    EXPECT_EQ(alone[i]->text, expected.text);
  }
}

TEST_F(EngineTest, RefusesAtOnceWhenTheQueueIsFull) {
  HoldSteps();
  const auto engine = MakeEngine({.max_queued_requests = 2, .max_running_sequences = 1});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const auto submit = [&] {
    sinks.push_back(std::make_shared<RecordingSink>());
    return engine->Submit(Plain(5, 3), sinks.back()).status();
  };
  ASSERT_TRUE(submit().ok());
  gate_.WaitForArrival();  // The first one runs; now two may wait.
  ASSERT_TRUE(submit().ok());
  ASSERT_TRUE(submit().ok());
  const absl::Status refused = submit();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetFieldErrorDetail(refused)->reason, "QUEUE_FULL");
  EXPECT_EQ(refused.message(), "2 requests are queued: at most 2 may wait");
  EXPECT_EQ(sinks.back().use_count(), 1) << "a refused sink is let go of";
  gate_.Open();
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_FALSE(sinks.back()->done()) << "a refused sink hears nothing";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sinks[i]->token_ids.size(), 3u);
}

TEST_F(EngineTest, RefusesADemandThatCanNeverFit) {
  const auto engine = MakeEngine({}, /*blocks=*/2);
  EXPECT_EQ(engine->kv_capacity_tokens(), 32);
  const auto sink = std::make_shared<RecordingSink>();
  const absl::Status refused = engine->Submit(Plain(20, 13), sink).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetFieldErrorDetail(refused)->reason, "KV_MEMORY_EXCEEDED");
  EXPECT_EQ(refused.message(),
            "stopping.max_tokens: prompt of 20 tokens in 1 runs of equal group and up to 13 "
            "generated take 3 KV blocks of 16 tokens: there are 2");
  ASSERT_TRUE(engine->Submit(Plain(20, 12), sink).ok());
  sink->WaitUntilDone();
  EXPECT_EQ(sink->token_ids.size(), 12u);
}

TEST_F(EngineTest, ACancelStopsARunningAndAWaitingRequest) {
  model_.decoder->on_forward = [](const StepBatch&) { absl::SleepFor(absl::Milliseconds(1)); };
  const auto engine = MakeEngine({.max_running_sequences = 1});
  const auto running = std::make_shared<RecordingSink>();
  const auto waiting = std::make_shared<RecordingSink>();
  const auto behind = std::make_shared<RecordingSink>();
  const auto ticket = engine->Submit(Plain(5, 1000), running);
  running->WaitForTokens(3);
  const auto waiting_ticket = engine->Submit(Plain(5, 1000), waiting);
  ASSERT_TRUE(engine->Submit(Plain(5, 4), behind).ok());
  engine->Cancel(*waiting_ticket);
  engine->Cancel(*ticket);
  engine->Cancel(*ticket + 1000);
  running->WaitUntilDone();
  waiting->WaitUntilDone();
  behind->WaitUntilDone();
  EXPECT_EQ(running->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->finish->generated_tokens, 0);
  EXPECT_EQ(behind->finish->reason, FinishReason::kLength);
}

TEST_F(EngineTest, ACancelDuringAStepIsTheLastOfTheRequest) {
  HoldSteps();
  const auto engine = MakeEngine({});
  const auto sink = std::make_shared<RecordingSink>();
  const auto ticket = engine->Submit(Plain(5, 1000), sink);
  gate_.WaitForArrival();
  engine->Cancel(*ticket);
  gate_.Open();
  sink->WaitUntilDone();
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
  EXPECT_LE(sink->token_ids.size(), 1u);
}

TEST_F(EngineTest, ASinkMayCancelItself) {
  const auto engine = MakeEngine({});
  const auto sink = std::make_shared<RecordingSink>();
  std::atomic<Engine::Ticket> ticket = 0;
  sink->on_token = [&] { engine->Cancel(ticket); };
  ticket = *engine->Submit(Plain(5, 1000), sink);
  sink->WaitUntilDone();
  EXPECT_EQ(sink->finish->reason, FinishReason::kCancelled);
}

TEST_F(EngineTest, ADeadlineEndsAWaitingRequestWithoutWork) {
  HoldSteps();
  const auto engine = MakeEngine({.max_running_sequences = 1});
  const auto first = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine->Submit(Plain(5, 3), first).ok());
  gate_.WaitForArrival();
  GenerateRequest request = Plain(5, 3);
  request.deadline = absl::Now();
  const auto late = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine->Submit(std::move(request), late).ok());
  gate_.Open();
  late->WaitUntilDone();
  EXPECT_EQ(late->finish->reason, FinishReason::kDeadline);
  EXPECT_EQ(late->finish->generated_tokens, 0);
  first->WaitUntilDone();
  EXPECT_EQ(first->finish->reason, FinishReason::kLength);
}

TEST_F(EngineTest, DrainFinishesWhatIsAcceptedAndRefusesTheRest) {
  HoldSteps();
  const auto engine = MakeEngine({.max_running_sequences = 1});
  const auto running = std::make_shared<RecordingSink>();
  const auto waiting = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine->Submit(Plain(5, 3), running).ok());
  ASSERT_TRUE(engine->Submit(Plain(5, 3), waiting).ok());
  EXPECT_FALSE(engine->Drain(absl::InfinitePast()));
  EXPECT_FALSE(engine->Drain(absl::Now() + absl::Milliseconds(20)));
  const auto refused = std::make_shared<RecordingSink>();
  EXPECT_EQ(engine->Submit(Plain(5, 3), refused).status().code(), absl::StatusCode::kUnavailable);
  gate_.Open();
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(running->token_ids.size(), 3u);
  EXPECT_EQ(waiting->token_ids.size(), 3u);
}

TEST_F(EngineTest, TheDestructorCancelsWhatIsLeftAndLetsGoOfSinks) {
  const auto running = std::make_shared<RecordingSink>();
  const auto waiting = std::make_shared<RecordingSink>();
  {
    const auto engine = MakeEngine({.max_running_sequences = 1});
    ASSERT_TRUE(engine->Submit(Plain(5, 900), running).ok());
    ASSERT_TRUE(engine->Submit(Plain(5, 900), waiting).ok());
    running->WaitForTokens(1);
  }
  EXPECT_EQ(running->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->finish->reason, FinishReason::kCancelled);
  EXPECT_EQ(running.use_count(), 1);
  EXPECT_EQ(waiting.use_count(), 1);
}

TEST_F(EngineTest, SubmitAndCancelFromManyThreadsEndEveryRequestOnce) {
  const auto engine = MakeEngine({.max_queued_requests = 20, .max_running_sequences = 8});
  std::atomic<int> accepted = 0;
  std::atomic<int> refused = 0;
  std::vector<std::thread> clients;
  for (uint32_t client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 random(client);
      for (int i = 0; i < 150; ++i) {
        const auto sink = std::make_shared<RecordingSink>();
        const auto ticket = engine->Submit(fake::RandomRequest(&random, 40, 20), sink);
        if (!ticket.ok()) {
          ++refused;
          continue;
        }
        ++accepted;
        if (random() % 2 == 0) engine->Cancel(*ticket);
        if (random() % 2 == 0) sink->WaitUntilDone();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(accepted + refused, 600);
  EXPECT_GT(accepted, 100);
}

TEST_F(EngineTest, ALostDeviceIsReportedOnce) {
  model_.decoder->survives_failure = false;
  std::atomic<int> lost = 0;
  {
    const auto engine = MakeEngine({.on_device_lost = [&lost] { ++lost; }});
    for (int i = 0; i < 3; ++i) {
      GenerateRequest bad = Plain(10, 5);
      bad.prompt.token_ids[3] = fake::kThrowId;
      const auto sink = std::make_shared<RecordingSink>();
      ASSERT_TRUE(engine->Submit(std::move(bad), sink).ok());
      sink->WaitUntilDone();
      EXPECT_EQ(sink->error.code(), absl::StatusCode::kInternal);
    }
  }  // Joins the engine's thread.
  EXPECT_EQ(lost, 1);
}

}  // namespace
}  // namespace structattn::engine
