// Requests per second over one GenerateBatch stream against as many Generate calls at a time.
// Run by hand: batch_stream_bench [CALLS] [WINDOW] [REQUESTS] [ROUNDS] [ADDRESS]. WINDOW is the
// stream's max_in_flight, 0 the server's default. Without an address the server runs in this
// process with a model that costs nothing, so that only the RPCs are timed; with one, its only
// model answers. Every answer over the stream is compared with the call's before anything is timed;
// then rounds alternate.
#include <grpcpp/create_channel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/in_process_server.h"

namespace structattn::rpc {
namespace {

struct Case {
  int calls = 32;
  int window = 0;
  int requests = 4000;
  int rounds = 7;
};

using Answers = std::vector<std::vector<int32_t>>;  // Token ids by request.

v1::GenerateRequest RequestOf(int i) {
  v1::GenerateRequest request = GoodRequest(4 + i % 9);
  request.clear_model();
  request.set_request_id(std::to_string(i));
  request.mutable_prompt()->mutable_segments(0)->set_text("Answer question " + std::to_string(i));
  return request;
}

Answers RunUnary(v1::InferenceService::Stub& stub, const Case& size) {
  Answers answers(size.requests);
  std::atomic<int> next = 0;
  std::vector<std::jthread> callers;
  for (int caller = 0; caller < size.calls; ++caller) {
    callers.emplace_back([&] {
      for (int i = next++; i < size.requests; i = next++) {
        answers[i] = RunGenerate(stub, RequestOf(i)).TokenIds();
      }
    });
  }
  callers.clear();
  return answers;
}

Answers RunStream(v1::InferenceService::Stub& stub, const Case& size) {
  Answers answers(size.requests);
  grpc::ClientContext context;
  const auto stream = stub.GenerateBatch(&context);
  std::jthread writer([&] {
    v1::GenerateBatchRequest message;
    message.mutable_options()->set_max_in_flight(size.window);
    stream->Write(message);
    for (int i = 0; i < size.requests; ++i) {
      *message.mutable_generate() = RequestOf(i);
      stream->Write(message);
    }
    stream->WritesDone();
  });
  v1::GenerateBatchResponse response;
  while (stream->Read(&response)) {
    std::vector<int32_t>& ids = answers[response.message_index() - 1];
    const v1::Chunk& chunk = response.generated().chunk();
    ids.insert(ids.end(), chunk.token_ids().begin(), chunk.token_ids().end());
  }
  writer.join();
  const grpc::Status status = stream->Finish();
  if (!status.ok()) std::printf("the stream ended with %s\n", status.error_message().c_str());
  return answers;
}

double RequestsPerSecond(const Case& size, const std::function<Answers()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return size.requests / seconds.count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  Case size;
  if (argc > 1) size.calls = std::atoi(argv[1]);
  if (argc > 2) size.window = std::atoi(argv[2]);
  if (argc > 3) size.requests = std::atoi(argv[3]);
  if (argc > 4) size.rounds = std::atoi(argv[4]);
  std::unique_ptr<InProcessServer> own;
  if (argc <= 5) own = std::make_unique<InProcessServer>();
  const auto stub = v1::InferenceService::NewStub(
      own != nullptr ? own->channel()
                     : grpc::CreateChannel(argv[5], grpc::InsecureChannelCredentials()));
  const auto unary = [&] { return RunUnary(*stub, size); };
  const auto stream = [&] { return RunStream(*stub, size); };

  const Answers expected = unary();
  const Answers given = stream();
  const auto empty = [](const std::vector<int32_t>& ids) { return ids.empty(); };
  if (given != expected || std::any_of(expected.begin(), expected.end(), empty)) {
    std::printf("the answers differ, or some are missing: nothing is timed\n");
    return 1;
  }
  std::printf("%d requests, %d calls at a time, window %d: answers equal\n", size.requests,
              size.calls, size.window);
  std::vector<double> ratios;
  for (int round = 0; round < size.rounds; ++round) {
    const double by_call = RequestsPerSecond(size, unary);
    const double by_stream = RequestsPerSecond(size, stream);
    ratios.push_back(by_stream / by_call);
    std::printf("calls %8.0f/s   stream %8.0f/s   ratio %.2f\n", by_call, by_stream, ratios.back());
  }
  std::printf("median ratio %.2f\n", Median(ratios));
  return 0;
}

}  // namespace
}  // namespace structattn::rpc

int main(int argc, char** argv) { return structattn::rpc::Main(argc, argv); }
