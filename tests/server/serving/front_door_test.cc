// FrontDoor and Call without any protocol, with a model that costs nothing: every way in which a
// call ends, exactly once, and what a full queue, a cancel, a withdrawal and a closing door do.
#include "server/serving/front_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/engine/field_error.h"
#include "server/serving/generate_call.h"
#include "server/serving/score_call.h"
#include "tests/server/engine/fakes.h"
#include "tests/server/serving/fake_server.h"

namespace structattn::serving {
namespace {

using ::testing::HasSubstr;

// Hears a call and checks the order of its events.
class Recorder final : public GenerateSink, public ScoreAnswerSink, public InspectSink {
 public:
  void OnStarted(Started) override {
    EXPECT_FALSE(ended_);
    EXPECT_FALSE(std::exchange(started, true));
  }
  void OnToken(engine::TokenEvent event) override {
    EXPECT_TRUE(started) << "a token before the start";
    EXPECT_FALSE(ended_);
    tokens += static_cast<int>(event.token_ids.size());
  }
  void OnFinish(const engine::FinishEvent& event) override {
    finish = event;
    End();
  }
  void OnAnswer(ScoreAnswer answer) override {
    scores = std::move(answer);
    End();
  }
  void OnInspected(const engine::EncodedPrompt& prompt, const Tokenizer&) override {
    inspected_tokens = prompt.structure.size();
    End();
  }
  void OnError(const absl::Status& status) override {
    error = status;
    End();
  }

  void Wait() { end_.WaitForNotification(); }
  bool ended() const { return ended_; }

  bool started = false;
  std::atomic<int> tokens = 0;
  std::optional<engine::FinishEvent> finish;
  std::optional<ScoreAnswer> scores;
  int inspected_tokens = 0;
  absl::Status error;

 private:
  void End() {
    EXPECT_FALSE(ended_.exchange(true)) << "the end was told twice";
    end_.Notify();
  }

  std::atomic<bool> ended_ = false;
  absl::Notification end_;
};

GenerateRequest Generate(int max_tokens = 4) {
  GenerateRequest request;
  request.prompt.segments = {{.type = engine::SegmentType::kContext, .content = "some text"}};
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  // Generated tokens must not trip the fake decoder's mines.
  request.sampling.logit_bias = {{engine::fake::kNanId, -1000.0f},
                                 {engine::fake::kThrowId, -1000.0f}};
  return request;
}

struct Admitted {
  std::shared_ptr<Recorder> sink = std::make_shared<Recorder>();
  std::shared_ptr<Call> call;
};

Admitted Admit(FakeServer& server, GenerateRequest request, bool waits_for_room = false) {
  Admitted admitted;
  admitted.call = std::make_shared<GenerateCall>(
      Call::Options{.method = "Generate", .waits_for_room = waits_for_room}, std::move(request),
      admitted.sink);
  server.door().Admit(admitted.call);
  return admitted;
}

TEST(FrontDoor, CallsOfEveryKindAreAnswered) {
  FakeServer server;
  const Admitted generated = Admit(server, Generate());
  const auto scored = std::make_shared<Recorder>();
  ScoreRequest score;
  score.prompt = Generate().prompt;
  score.continuations = {{.content = "yes"}, {.content = "no"}};
  server.door().Admit(std::make_shared<ScoreCall>(Call::Options{.method = "Score"}, score, scored));
  const auto inspected = std::make_shared<Recorder>();
  server.door().Admit(std::make_shared<InspectCall>(
      Call::Options{.method = "Inspect"}, InspectRequest{.header = {}, .prompt = score.prompt},
      inspected));
  for (Recorder* sink : {generated.sink.get(), scored.get(), inspected.get()}) {
    sink->Wait();
    EXPECT_TRUE(sink->error.ok()) << sink->error;
  }
  EXPECT_EQ(generated.sink->tokens, 4);
  EXPECT_EQ(scored->scores->continuations.size(), 2u);
  EXPECT_EQ(inspected->inspected_tokens, 9);
  generated.call->Close(/*caller_gone=*/false);
}

TEST(FrontDoor, RefusesWhileItIsLoadingAndWhenItHasClosed) {
  FakeServer server({.open = false});
  const Admitted early = Admit(server, Generate());
  EXPECT_TRUE(early.sink->ended());  // At once.
  EXPECT_TRUE(absl::IsUnavailable(early.sink->error));
  server.door().Open();
  const Admitted open = Admit(server, Generate());
  open.sink->Wait();
  EXPECT_TRUE(open.sink->error.ok());
  server.door().Close();
  const Admitted late = Admit(server, Generate());
  EXPECT_TRUE(absl::IsUnavailable(late.sink->error));
}

TEST(FrontDoor, RefusesWhatTheProtocolOrTheChecksFindWrong) {
  FakeServer server;
  GenerateRequest bad = Generate();
  bad.sampling.top_p = 7.0f;
  const Admitted refused = Admit(server, bad);
  refused.sink->Wait();
  EXPECT_EQ(engine::GetFieldErrorDetail(refused.sink->error)->field, "sampling.top_p");
  EXPECT_FALSE(refused.sink->started);

  Admitted malformed;
  malformed.call = std::make_shared<GenerateCall>(Call::Options{}, Generate(), malformed.sink);
  server.door().Admit(malformed.call, absl::InvalidArgumentError("not a message"));
  EXPECT_THAT(std::string(malformed.sink->error.message()), HasSubstr("not a message"));

  GenerateRequest unknown = Generate();
  unknown.header.model = "other";
  EXPECT_TRUE(absl::IsNotFound(Admit(server, unknown).sink->error));
}

TEST(FrontDoor, ACancelEndsACallWhereverItIs) {
  FakeServer server({.max_queued_requests = 1, .max_running_sequences = 1});
  server.HoldSteps();
  std::vector<Admitted> calls;
  for (int i = 0; i < 6; ++i) calls.push_back(Admit(server, Generate(), /*waits_for_room=*/true));
  for (const Admitted& admitted : calls) admitted.call->Cancel();
  server.ReleaseSteps();
  for (const Admitted& admitted : calls) {
    admitted.sink->Wait();
    ASSERT_TRUE(admitted.sink->finish.has_value()) << admitted.sink->error;
    EXPECT_EQ(admitted.sink->finish->reason, engine::FinishReason::kCancelled);
    EXPECT_GT(admitted.sink->finish->prompt_tokens, 0);
    admitted.call->Cancel();  // Has no effect any more.
    admitted.call->Close(/*caller_gone=*/false);
  }
}

TEST(FrontDoor, AFullQueueIsWaitedForOnlyWhereTheCallSaysSo) {
  FakeServer server({.max_queued_requests = 1, .max_running_sequences = 1});
  server.HoldSteps();
  std::vector<Admitted> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(Admit(server, Generate(), true));
  server.AwaitStep();
  std::vector<Admitted> refused;
  for (int i = 0; i < 2; ++i) refused.push_back(Admit(server, Generate()));
  refused.back().sink->Wait();
  EXPECT_EQ(engine::GetFieldErrorDetail(refused.back().sink->error)->reason, "QUEUE_FULL");
  server.ReleaseSteps();
  for (const Admitted& admitted : waiting) {
    admitted.sink->Wait();
    EXPECT_TRUE(admitted.sink->error.ok()) << admitted.sink->error;
    EXPECT_EQ(admitted.sink->tokens, 4);
  }
}

TEST(FrontDoor, AWaitingCallEndsWithItsDeadline) {
  FakeServer server({.max_queued_requests = 1, .max_running_sequences = 1});
  server.HoldSteps();
  std::vector<Admitted> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(Admit(server, Generate(), true));
  GenerateRequest hurried = Generate();
  hurried.header.timeout_ms = 20;
  const Admitted late = Admit(server, hurried, true);
  late.sink->Wait();
  EXPECT_EQ(late.sink->finish->reason, engine::FinishReason::kDeadline);
  server.ReleaseSteps();
  for (const Admitted& admitted : calls) admitted.sink->Wait();
}

TEST(FrontDoor, AWithdrawnCallHearsNothingMore) {
  FakeServer server({.max_queued_requests = 1, .max_running_sequences = 1});
  server.HoldSteps();
  std::vector<Admitted> calls;
  for (int i = 0; i < 6; ++i) calls.push_back(Admit(server, Generate(), true));
  server.AwaitStep();
  std::vector<bool> withdrawn;
  for (const Admitted& admitted : calls) withdrawn.push_back(admitted.call->Withdraw());
  EXPECT_FALSE(withdrawn.front());  // The engine has the first.
  EXPECT_TRUE(withdrawn.back());
  server.ReleaseSteps();
  for (size_t i = 0; i < calls.size(); ++i) {
    if (withdrawn[i]) continue;
    calls[i].sink->Wait();
    EXPECT_EQ(calls[i].sink->tokens, 4);
  }
  absl::SleepFor(absl::Milliseconds(100));
  for (size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(calls[i].sink->ended(), !withdrawn[i]);
}

TEST(FrontDoor, ClosingRefusesWhatNoEngineHasAndLeavesTheRest) {
  FakeServer server({.max_queued_requests = 1, .max_running_sequences = 1});
  server.HoldSteps();
  std::vector<Admitted> calls;
  for (int i = 0; i < 6; ++i) calls.push_back(Admit(server, Generate(), true));
  server.AwaitStep();
  server.door().Close();
  server.ReleaseSteps();
  int answered = 0;
  for (const Admitted& admitted : calls) {
    admitted.sink->Wait();
    EXPECT_TRUE(admitted.sink->error.ok() || absl::IsUnavailable(admitted.sink->error));
    answered += admitted.sink->error.ok() ? 1 : 0;
  }
  EXPECT_GE(answered, 1);
  EXPECT_LT(answered, 6);
}

// A costly text stops being tokenized when its caller leaves; cheap calls pass it meanwhile.
TEST(FrontDoor, ACostlyTextDelaysNoOtherAndEndsWithItsCaller) {
  FakeServer server;
  server.HoldTokenizing();  // Of costly texts, until they are stopped.
  GenerateRequest costly = Generate();
  costly.prompt.segments[0].content = std::string(1 << 20, 'x');
  const Admitted slow = Admit(server, costly);
  const Admitted quick = Admit(server, Generate());
  quick.sink->Wait();
  EXPECT_TRUE(quick.sink->error.ok()) << quick.sink->error;
  EXPECT_FALSE(slow.sink->ended());
  slow.call->Cancel();
  slow.sink->Wait();
  EXPECT_EQ(slow.sink->finish->reason, engine::FinishReason::kCancelled);
  slow.call->Close(/*caller_gone=*/true);
}

// A deadline stops the one that is tokenized and the one behind it.
TEST(FrontDoor, ACostlyTextEndsWithItsDeadline) {
  FakeServer server;
  server.HoldTokenizing();  // Of costly texts, until they are stopped.
  GenerateRequest costly = Generate();
  costly.header.timeout_ms = 50;
  costly.prompt.segments[0].content = std::string(1 << 20, 'x');
  for (const Admitted& slow : {Admit(server, costly), Admit(server, costly)}) {
    slow.sink->Wait();
    ASSERT_TRUE(slow.sink->finish.has_value()) << slow.sink->error;
    EXPECT_EQ(slow.sink->finish->reason, engine::FinishReason::kDeadline);
    slow.call->Close(/*caller_gone=*/false);
  }
}

// What is wrong with a request is said before it waits, so that no stopped call goes by its
// numbers.
TEST(FrontDoor, ChecksACostlyCallBeforeItCanBeStopped) {
  FakeServer server;
  server.HoldTokenizing();
  GenerateRequest costly = Generate();
  costly.prompt.segments[0].content = std::string(1 << 20, 'x');
  const Admitted busy = Admit(server, costly);
  GenerateRequest huge = costly;
  huge.n = std::numeric_limits<int32_t>::max();
  huge.header.timeout_ms = 1;
  const Admitted refused = Admit(server, huge);
  EXPECT_TRUE(refused.sink->ended());
  EXPECT_EQ(engine::GetFieldErrorDetail(refused.sink->error)->field, "n");
  const Admitted queued = Admit(server, costly);
  queued.call->Cancel();
  EXPECT_TRUE(queued.sink->ended());  // At once: it only waited.
  busy.call->Cancel();
  busy.sink->Wait();
}

// An answer that is not read keeps no model.
TEST(FrontDoor, AnEndedCallHoldsNoModelBeforeItIsClosed) {
  FakeServer server;
  const Admitted admitted = Admit(server, Generate());
  admitted.sink->Wait();
  EXPECT_TRUE(server.registry().Unload("m").ok());
  admitted.call->Close(/*caller_gone=*/false);
}

// Random cancels, withdrawals and closes from several threads: every call ends exactly once, or is
// withdrawn, and the server goes on.
TEST(FrontDoor, RandomInterferenceEndsEveryCallOnce) {
  FakeServer server({.max_queued_requests = 4, .max_running_sequences = 2});
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&server, thread] {
      std::mt19937 random(static_cast<uint32_t>(thread));
      for (int i = 0; i < 100; ++i) {
        const Admitted admitted = Admit(server, Generate(1 + random() % 8), random() % 2 == 0);
        if (random() % 2 == 0) absl::SleepFor(absl::Microseconds(random() % 500));
        const uint32_t action = random() % 4;
        const bool withdrawn = action == 0 && admitted.call->Withdraw();
        if (action == 1) admitted.call->Cancel();
        if (!withdrawn) admitted.sink->Wait();
        if (!withdrawn) admitted.call->Close(action == 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Admitted last = Admit(server, Generate());
  last.sink->Wait();
  EXPECT_EQ(last.sink->tokens, 4);
}

}  // namespace
}  // namespace structattn::serving
