// What others feel while clients send texts that are costly to tokenize: health checks and short
// requests, beside 16 clients whose prompts of 1 MiB are as hostile as text can be.
// Run by hand: hostile_bench ADDRESS [CLIENTS] [SECONDS]. The only model of the server answers. The
// short request's tokens are compared with those of an idle server, before and while it is timed.
// Prints the latency of both, idle and beside the hostile clients, and how many hostile texts were
// read meanwhile.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kHostileBytes = size_t{1} << 20;
constexpr std::chrono::seconds kHostilePatience{10};
constexpr int kShortTokens = 8;
constexpr absl::Duration kPause = absl::Milliseconds(5);  // Between two measurements.

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt("grpc.use_local_subchannel_pool", 1);  // A connection of its own.
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

std::string Repeated(const std::string& piece) {
  std::string text;
  while (text.size() + piece.size() <= kHostileBytes) text += piece;
  return text;
}

std::vector<std::string> HostileTexts() {
  std::mt19937 random(1);
  std::string letters(kHostileBytes, 'a');
  for (char& letter : letters) letter = static_cast<char>('a' + random() % 26);
  return {letters,
          Repeated(" "),
          Repeated("\t"),
          Repeated("\n"),
          Repeated("a"),
          Repeated("word"),
          Repeated("e\u0301"),
          Repeated("\u0301"),
          Repeated(" \n"),
          Repeated("\U0001F469\u200D")};
}

void SendHostile(const std::string& address, const std::vector<std::string>& texts, int first,
                 std::atomic<bool>* stop, std::atomic<int64_t>* sent) {
  const auto stub = v1::InferenceService::NewStub(Connect(address));
  for (size_t i = static_cast<size_t>(first); !*stop; ++i) {
    v1::InspectRequest request;
    v1::Segment* segment = request.mutable_prompt()->add_segments();
    segment->set_type(v1::SEGMENT_TYPE_CONTEXT);
    segment->set_text(texts[i % texts.size()]);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kHostilePatience);
    v1::InspectResponse response;
    static_cast<void>(
        stub->Inspect(&context, request, &response));  // It is over the context, so refused.
    ++*sent;
  }
}

struct Latencies {
  std::vector<double> milliseconds;

  double At(double share) {
    std::ranges::sort(milliseconds);
    return milliseconds[static_cast<size_t>(share * static_cast<double>(milliseconds.size() - 1))];
  }
};

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

Latencies MeasureHealth(const std::string& address, Clock::time_point end) {
  const auto stub = grpc::health::v1::Health::NewStub(Connect(address));
  Latencies latencies;
  while (Clock::now() < end) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    const Clock::time_point begin = Clock::now();
    if (!stub->Check(&context, {}, &response).ok()) std::exit(1);
    latencies.milliseconds.push_back(MillisecondsSince(begin));
    absl::SleepFor(kPause);
  }
  return latencies;
}

v1::GenerateRequest ShortRequest() {
  v1::GenerateRequest request = GoodRequest(kShortTokens);
  request.clear_model();
  request.mutable_sampling()->Clear();
  return request;
}

Latencies MeasureShort(const std::string& address, const std::vector<int32_t>& expected,
                       Clock::time_point end) {
  const auto stub = v1::InferenceService::NewStub(Connect(address));
  Latencies latencies;
  while (Clock::now() < end) {
    const Clock::time_point begin = Clock::now();
    const StreamResult result = RunGenerate(*stub, ShortRequest());
    latencies.milliseconds.push_back(MillisecondsSince(begin));
    if (!result.status.ok() || result.TokenIds() != expected) {
      std::fprintf(stderr, "a wrong answer: %s\n", result.status.error_message().c_str());
      std::exit(1);
    }
    absl::SleepFor(kPause);
  }
  return latencies;
}

void Measure(const char* what, const std::string& address, const std::vector<int32_t>& expected,
             int seconds) {
  const Clock::time_point end = Clock::now() + std::chrono::seconds(seconds);
  Latencies health;
  std::thread prober([&] { health = MeasureHealth(address, end); });
  Latencies requests = MeasureShort(address, expected, end);
  prober.join();
  std::printf(
      "%-8s health p50 %7.2f p99 %7.2f max %7.2f ms (%zu)   "
      "short request p50 %7.2f p99 %7.2f max %7.2f ms (%zu)\n",
      what, health.At(0.5), health.At(0.99), health.At(1.0), health.milliseconds.size(),
      requests.At(0.5), requests.At(0.99), requests.At(1.0), requests.milliseconds.size());
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: hostile_bench ADDRESS [CLIENTS] [SECONDS]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string address = argv[1];
  const int clients = argc > 2 ? std::atoi(argv[2]) : 16;
  const int seconds = argc > 3 ? std::atoi(argv[3]) : 20;
  const auto stub = v1::InferenceService::NewStub(Connect(address));
  const StreamResult alone = RunGenerate(*stub, ShortRequest());
  if (!alone.status.ok()) {
    std::fprintf(stderr, "%s: %s\n", address.c_str(), alone.status.error_message().c_str());
    return 1;
  }
  Measure("idle", address, alone.TokenIds(), seconds);
  const std::vector<std::string> texts = HostileTexts();
  std::atomic<bool> stop = false;
  std::atomic<int64_t> sent = 0;
  std::vector<std::thread> hostile;
  for (int i = 0; i < clients; ++i) {
    hostile.emplace_back([&, i] { SendHostile(address, texts, i, &stop, &sent); });
  }
  absl::SleepFor(absl::Seconds(1));
  Measure("hostile", address, alone.TokenIds(), seconds);
  stop = true;
  for (std::thread& client : hostile) client.join();
  std::printf("%d hostile clients: %lld texts of 1 MiB\n", clients,
              static_cast<long long>(sent.load()));
  return 0;
}

}  // namespace
}  // namespace structattn::rpc

int main(int argc, char** argv) { return structattn::rpc::Main(argc, argv); }
