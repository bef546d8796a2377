// Many Generate streams at once: whether all get on alike, and what the server adds to a token.
// Run by hand: streams_bench [STREAMS] [SECONDS] [ADDRESS]. Every stream asks again as soon as it
// is answered, until the time is over. Without an address the server runs in this process with a
// model that costs nothing, so that a token's time is the server's and the client's alone; with
// one, its only model answers. Answers are compared with those of a stream alone before anything is
// timed. Prints tokens a second, the slowest stream's tokens against the fastest's, and what a
// token of a stream alone takes from the engine to the client: beyond a model that only sleeps,
// beside what sleeping itself takes too long.
#include <grpcpp/create_channel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTokens = 32;  // Of an answer.
constexpr int kPrompts = 16;
constexpr int kTimedTokens = 2000;  // Of a stream alone.
constexpr absl::Duration kSleep = absl::Milliseconds(1);

v1::GenerateRequest RequestOf(int i, int tokens) {
  v1::GenerateRequest request = GoodRequest(tokens);
  request.clear_model();
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_prompt()->mutable_segments(0)->set_text("Answer question " +
                                                          std::to_string(i % kPrompts));
  return request;
}

// What one stream after another got.
struct Progress {
  int64_t tokens = 0;
  int64_t wrong = 0;  // Answers, failed or other than expected.
};

Progress Ask(v1::InferenceService::Stub& stub, const std::vector<std::vector<int32_t>>& expected,
             int first, Clock::time_point end) {
  Progress progress;
  for (int i = first; Clock::now() < end; ++i) {
    const StreamResult result = RunGenerate(stub, RequestOf(i, kTokens));
    progress.tokens += static_cast<int64_t>(result.TokenIds().size());
    if (!result.status.ok() || result.TokenIds() != expected[i % kPrompts]) ++progress.wrong;
  }
  return progress;
}

// Microseconds from token to token of one stream, less the model's sleep.
std::vector<double> Gaps(v1::InferenceService::Stub& stub) {
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, RequestOf(0, kTimedTokens));
  std::vector<double> gaps;
  v1::GenerateResponse response;
  Clock::time_point last = Clock::now();
  bool begun = false;
  while (reader->Read(&response)) {
    if (!response.has_chunk()) continue;
    const Clock::time_point now = Clock::now();
    const std::chrono::duration<double, std::micro> gap = now - last;
    const int tokens = std::max(1, response.chunk().token_ids_size());
    if (begun) gaps.push_back(gap.count() / tokens - absl::ToDoubleMicroseconds(kSleep));
    begun = true;
    last = now;
  }
  if (!reader->Finish().ok()) gaps.clear();
  std::sort(gaps.begin(), gaps.end());
  return gaps;
}

// Microseconds that sleeping takes too long.
std::vector<double> Oversleeps() {
  std::vector<double> times;
  for (int i = 0; i < kTimedTokens; ++i) {
    const Clock::time_point begin = Clock::now();
    absl::SleepFor(kSleep);
    const std::chrono::duration<double, std::micro> slept = Clock::now() - begin;
    times.push_back(slept.count() - absl::ToDoubleMicroseconds(kSleep));
  }
  std::sort(times.begin(), times.end());
  return times;
}

void Show(const char* what, const std::vector<double>& sorted) {
  const auto at = [&sorted](double share) {
    return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
  };
  std::printf("%s: p50 %.0f us, p99 %.0f us\n", what, at(0.50), at(0.99));
}

void ShowOverhead() {
  InProcessServer server({.step_time = kSleep});
  const std::vector<double> gaps = Gaps(server.inference());
  if (gaps.empty()) {
    std::printf("a stream failed: it is not timed\n");
    return;
  }
  Show("sleeping longer than asked for", Oversleeps());
  Show("one stream, a token beyond the model's sleep", gaps);
}

int Main(int argc, char** argv) {
  const int streams = argc > 1 ? std::atoi(argv[1]) : 256;
  const int seconds = argc > 2 ? std::atoi(argv[2]) : 60;
  std::unique_ptr<InProcessServer> own;
  if (argc <= 3) own = std::make_unique<InProcessServer>();
  const auto stub = v1::InferenceService::NewStub(
      own != nullptr ? own->channel()
                     : grpc::CreateChannel(argv[3], grpc::InsecureChannelCredentials()));

  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < kPrompts; ++i) {
    expected.push_back(RunGenerate(*stub, RequestOf(i, kTokens)).TokenIds());
    if (static_cast<int>(expected.back().size()) != kTokens) {
      std::printf("an answer has %zu tokens: nothing is timed\n", expected.back().size());
      return 1;
    }
  }
  ShowOverhead();

  std::vector<Progress> progress(streams);
  {
    const Clock::time_point end = Clock::now() + std::chrono::seconds(seconds);
    std::vector<std::jthread> threads;
    for (int i = 0; i < streams; ++i) {
      threads.emplace_back([&, i] { progress[i] = Ask(*stub, expected, i, end); });
    }
  }
  int64_t tokens = 0;
  int64_t wrong = 0;
  for (const Progress& one : progress) {
    tokens += one.tokens;
    wrong += one.wrong;
  }
  const auto by_tokens = [](const Progress& a, const Progress& b) { return a.tokens < b.tokens; };
  const auto [slowest, fastest] = std::minmax_element(progress.begin(), progress.end(), by_tokens);
  std::printf("%d streams, %d s: %.0f tokens/s, %lld wrong answers, slowest / fastest %.2f\n",
              streams, seconds, static_cast<double>(tokens) / seconds,
              static_cast<long long>(wrong),
              static_cast<double>(slowest->tokens) / static_cast<double>(fastest->tokens));
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace structattn::rpc

int main(int argc, char** argv) { return structattn::rpc::Main(argc, argv); }
