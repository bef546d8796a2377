// Twenty seconds of good and bad requests, cancels, slow readers and health checks from many
// threads. Every good answer is compared; at the end nothing may be left running.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/bad_requests.h"

namespace structattn::rpc {
namespace {

constexpr int kThreads = 8;
constexpr absl::Duration kDuration = absl::Seconds(20);

class Soaker {
 public:
  Soaker(InProcessServer* server, uint32_t seed) : server_(server), random_(seed) {}

  void Run(absl::Time end) {
    while (absl::Now() < end) {
      const int kind = Below(10);
      if (kind < 4) {
        Good();
      } else if (kind < 7) {
        Bad();
      } else if (kind < 9) {
        Cancelled();
      } else {
        EXPECT_EQ(server_->Health(""), "SERVING");
      }
      ++calls_;
    }
  }

  int calls() const { return calls_; }

 private:
  int Below(int bound) { return static_cast<int>(random_() % bound); }

  v1::GenerateRequest RandomGood(int max_tokens) {
    v1::GenerateRequest request = GoodRequest(1 + Below(max_tokens));
    request.mutable_prompt()->mutable_segments(0)->set_text(
        std::string(1 + Below(300), static_cast<char>('a' + Below(26))));
    request.mutable_output()->set_echo(Below(2) == 0);
    request.mutable_output()->set_top_logprobs(Below(21));
    return request;
  }

  void Good() {
    const v1::GenerateRequest request = RandomGood(60);
    const StreamResult first = RunGenerate(server_->inference(), request);
    if (first.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) return;
    ASSERT_TRUE(first.status.ok()) << first.status.error_message();
    ASSERT_TRUE(first.InOrder());
    EXPECT_EQ(static_cast<int>(first.TokenIds().size()), request.stopping().max_tokens());
  }

  void Bad() {
    static const std::vector<BadRequestCase> cases = BadRequestCases();
    const BadRequestCase& bad = cases[Below(static_cast<int>(cases.size()))];
    v1::GenerateRequest request = GoodRequest();
    bad.spoil(&request);
    const StreamResult result = RunGenerate(server_->inference(), request);
    EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << bad.name;
    EXPECT_EQ(DetailsOf(result.status).field, bad.field);
  }

  void Cancelled() {
    grpc::ClientContext context;
    const auto reader = server_->inference().Generate(&context, RandomGood(3000));
    v1::GenerateResponse response;
    for (int reads = Below(20); reads > 0 && reader->Read(&response); --reads) {
    }
    if (Below(2) == 0) absl::SleepFor(absl::Milliseconds(Below(10)));
    context.TryCancel();
    while (reader->Read(&response)) {
    }
    reader->Finish();
  }

  InProcessServer* const server_;
  std::mt19937 random_;
  int calls_ = 0;
};

TEST(Soak, GoodBadAndCancelledRequestsTogether) {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  InProcessServer server({.engine = {.max_queued_requests = 16}, .kv_blocks = 512});
  const absl::Time end = absl::Now() + kDuration;
  std::atomic<int> calls = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Soaker soaker(&server, seed + i);
      soaker.Run(end);
      calls += soaker.calls();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%d calls\n", calls.load());
  EXPECT_TRUE(server.BecomesIdle("m"));
  EXPECT_TRUE(server.server().Drain(absl::Now() + absl::Seconds(5)));
}

}  // namespace
}  // namespace structattn::rpc
