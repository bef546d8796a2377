// GenerateBatch under load and under abuse: ten thousand requests over one stream with a slow
// reader and cancels at random, and many streams whose messages come in any order and end anywhere.
// Every answer is accounted for; at the end nothing may be left running, and memory must not grow.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <latch>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/v1/batch_client.h"

namespace structattn::rpc {
namespace {

constexpr int kRequests = 10'000;
constexpr int kStreams = 400;

// Resident memory of this process: server, engine and client.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

uint32_t PrintedSeed() {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  return seed;
}

v1::GenerateRequest ShortRequest(int i) {
  v1::GenerateRequest request = GoodRequest(1 + i % 8);
  request.mutable_prompt()->mutable_segments(0)->set_text(std::string(1 + i % 30, 'a' + i % 26));
  return request;
}

class Soak {
 public:
  Soak(BatchClient* client, uint32_t seed) : client_(client), random_(seed) {}

  // Requests in order, here and there a cancel of one of the last.
  void WriteAll() {
    for (int i = 0; i < kRequests; ++i) {
      ASSERT_TRUE(client_->Send(std::to_string(i), ShortRequest(i)));
      index_of_request_.push_back(next_message_++);
      if (random_() % 10 != 0) continue;
      const int cancelled = std::max<int>(0, i - static_cast<int>(random_() % 64));
      ASSERT_TRUE(client_->Cancel(std::to_string(cancelled)));
      cancelled_.insert(cancelled);
      ++next_message_;
    }
    client_->HalfClose();
  }

  // Resident bytes after each tenth of the answers.
  std::vector<int64_t> ReadSlowly(std::map<int, v1::FinishReason>* answers) {
    std::vector<int64_t> resident;
    std::mt19937 pauses(7);
    BatchAnswer answer;
    while (client_->Read(&answer)) {
      const int id = std::stoi(answer.request_id);
      message_of_[id] = answer.message_index;
      EXPECT_TRUE(answers->emplace(id, answer.finished.reason()).second) << id << " answered twice";
      CheckAnswer(id, answer);
      if (pauses() % 50 == 0) absl::SleepFor(absl::Milliseconds(pauses() % 20));
      if (answers->size() % (kRequests / 10) == 0) resident.push_back(ResidentBytes());
    }
    return resident;
  }

  void CheckPlaces() const {
    for (const auto& [id, index] : message_of_) EXPECT_EQ(index, index_of_request_[id]) << id;
  }
  const std::set<int>& cancelled() const { return cancelled_; }

 private:
  static void CheckAnswer(int id, const BatchAnswer& answer) {
    ASSERT_TRUE(answer.error.ok()) << answer.error.error_message();
    if (answer.finished.reason() == v1::FINISH_REASON_CANCELLED) return;
    if (id % 10 == 0) ExpectAnswers(answer, ShortRequest(id));  // The reference takes its time.
    EXPECT_EQ(static_cast<int>(answer.token_ids.size()), 1 + id % 8);
  }

  BatchClient* const client_;
  std::mt19937 random_;
  int64_t next_message_ = 1;  // The options were the first.
  std::vector<int64_t> index_of_request_;
  std::map<int, int64_t> message_of_;
  std::set<int> cancelled_;
};

TEST(GenerateBatchSoak, TenThousandRequestsASlowReaderAndCancels) {
  for (const v1::BatchOrder order : {v1::BATCH_ORDER_AS_FINISHED, v1::BATCH_ORDER_INPUT}) {
    InProcessServer server({.engine = {.max_queued_requests = 16}, .kv_blocks = 512});
    v1::BatchOptions options;
    options.set_order(order);
    BatchClient client(&server, &options);
    Soak soak(&client, PrintedSeed());
    std::map<int, v1::FinishReason> answers;
    std::jthread writer([&] { soak.WriteAll(); });
    const std::vector<int64_t> resident = soak.ReadSlowly(&answers);
    writer.join();
    EXPECT_TRUE(client.Finish().ok());
    EXPECT_EQ(answers.size(), static_cast<size_t>(kRequests));
    soak.CheckPlaces();
    int stopped = 0;
    for (const auto& [id, reason] : answers) {
      if (reason != v1::FINISH_REASON_CANCELLED) continue;
      ++stopped;
      EXPECT_TRUE(soak.cancelled().contains(id)) << id;
    }
    ASSERT_EQ(resident.size(), 10u);
    std::printf("%d cancelled; resident MiB:", stopped);
    for (const int64_t bytes : resident)
      std::printf(" %.1f", static_cast<double>(bytes) / (1 << 20));
    std::printf("\n");
    EXPECT_GT(stopped, 0);
    // What the test itself and the stream keep per request, and the allocator's slack.
    EXPECT_LT(resident.back() - resident[1], int64_t{4} << 20);
    EXPECT_TRUE(server.BecomesIdle("m"));
    EXPECT_TRUE(server.server().Drain(absl::Now() + absl::Seconds(5)));
  }
}

// One stream of random messages; its client may stop at any of them.
class RandomStream {
 public:
  RandomStream(InProcessServer* server, uint32_t seed) : server_(server), random_(seed) {}

  void Run() {
    v1::BatchOptions options;
    options.set_order(Below(2) == 0 ? v1::BATCH_ORDER_INPUT : v1::BATCH_ORDER_AS_FINISHED);
    options.set_max_in_flight(1 + Below(8));
    BatchClient client(server_, Below(4) == 0 ? nullptr : &options);
    const bool leaves = Below(3) == 0;
    const int messages = Below(40);
    std::jthread reader([&] { answers_ = client.ReadAll(); });
    bool open = true;
    for (int i = 0; i < messages && open; ++i) open = SendOne(&client);
    if (leaves) {
      absl::SleepFor(absl::Milliseconds(Below(5)));
      client.context().TryCancel();
    } else {
      client.HalfClose();
    }
    reader.join();
    const grpc::Status status = client.Finish();
    if (leaves) return;
    ASSERT_TRUE(open && status.ok()) << status.error_message();
    EXPECT_EQ(static_cast<int>(answers_.size()), expected_answers_ + unknown_cancels_);
  }

 private:
  int Below(int bound) { return static_cast<int>(random_() % bound); }

  bool SendOne(BatchClient* client) {
    const std::string id = std::to_string(Below(60));
    switch (Below(8)) {
      case 0:
        if (!sent_.contains(id)) ++unknown_cancels_;
        return client->Cancel(id);
      case 1: {
        v1::GenerateBatchRequest nothing;
        if (Below(2) == 0) nothing.mutable_generate()->set_model("\xff");
        ++expected_answers_;
        return client->Write(nothing);
      }
      case 2:
        absl::SleepFor(absl::Milliseconds(Below(3)));
        return true;
      default:
        sent_.insert(id);
        ++expected_answers_;  // An answer or, of a duplicate, an error.
        if (Below(4) == 0) {
          v1::ScoreRequest request;
          *request.mutable_prompt() = GoodRequest().prompt();
          request.add_continuations()->set_text(std::string(1 + Below(30), 'x'));
          return client->SendScore(id, request);
        }
        return client->Send(id, GoodRequest(1 + Below(Below(10) == 0 ? 400 : 6)));
    }
  }

  InProcessServer* const server_;
  std::mt19937 random_;
  std::set<std::string> sent_;
  int expected_answers_ = 0;
  int unknown_cancels_ = 0;
  std::map<int64_t, BatchAnswer> answers_;
};

TEST(GenerateBatchSoak, AnyOrderOfMessagesAndAnyEndLeavesNothingBehind) {
  const uint32_t seed = PrintedSeed();
  InProcessServer server(
      {.engine = {.max_queued_requests = 4, .max_running_sequences = 4}, .kv_blocks = 256});
  std::atomic<int> next = 0;
  std::vector<std::jthread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int stream = next++; stream < kStreams && !::testing::Test::HasFailure();
           stream = next++) {
        RandomStream(&server, seed + stream).Run();
      }
    });
  }
  clients.clear();
  EXPECT_TRUE(server.BecomesIdle("m"));
  EXPECT_TRUE(RunGenerate(server.inference(), GoodRequest()).InOrder());
  // Waits until every lease is back: no stream is left, hung or leaked.
  EXPECT_TRUE(server.registry().Unload("m").ok());
}

// The server goes while streams of all kinds run.
TEST(GenerateBatchSoak, ADrainAtAnyMomentEndsEveryStream) {
  const uint32_t seed = PrintedSeed();
  for (uint32_t round = 0; round < 20; ++round) {
    InProcessServer server({.engine = {.max_queued_requests = 4, .max_running_sequences = 4}});
    std::latch started(4);  // gRPC itself turns away calls that come after the drain.
    std::vector<std::jthread> clients;
    for (uint32_t i = 0; i < 4; ++i) {
      clients.emplace_back(
          [&server, &started, random = std::mt19937(seed + 4 * round + i)]() mutable {
            BatchClient client(&server);
            BatchAnswer first;
            EXPECT_TRUE(client.Send("first", GoodRequest(1)) && client.Read(&first));
            started.count_down();
            std::jthread reader([&] { client.ReadAll(); });
            for (int n = 0; client.Send(std::to_string(n), GoodRequest(1 + random() % 50)); ++n) {
            }
            reader.join();
            const grpc::Status status = client.Finish();
            EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
          });
    }
    started.wait();
    absl::SleepFor(absl::Milliseconds(std::mt19937(seed + round)() % 60));
    const absl::Time begin = absl::Now();
    EXPECT_TRUE(server.server().Drain(absl::Now() + absl::Seconds(30)));
    clients.clear();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  }
}

}  // namespace
}  // namespace structattn::rpc
