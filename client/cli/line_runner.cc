// See line_runner.h.
#include "client/cli/line_runner.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "client/cli/files.h"
#include "client/cli/ordered_output.h"

namespace structattn::client {
namespace {

constexpr int kMaxConcurrency = 1024;
// A full queue is waited for. A server that has answered before and is away may be restarting: it
// gets some 25 s, in delays that double; one that never answered gets one.
constexpr int kUnavailableRetries = 7;
constexpr std::chrono::milliseconds kRetryDelay{200};
constexpr std::chrono::milliseconds kInterruptCheck{50};

class LineRunner {
 public:
  LineRunner(Session& session, const LineOptions& options, const v1::Prompt& defaults,
             const MakeLineCall& make_call)
      : session_(session),
        options_(options),
        defaults_(defaults),
        make_call_(make_call),
        client_(session.options.server),
        lines_(ReadLines(options.input_file)),
        output_({.path = options.output_file, .resume = options.resume, .inputs = lines_}) {}

  ExitCode Run() {
    std::vector<std::thread> workers;
    const size_t count = std::min(lines_.size(), static_cast<size_t>(options_.concurrency));
    for (size_t i = 0; i < count; ++i) workers.emplace_back([this] { Work(); });
    for (std::thread& worker : workers) worker.join();
    output_.Close();
    if (session_.interrupt.raised()) return ExitCode::kInterrupted;
    if (unreachable_) return ExitCode::kUnreachable;
    return output_.failed() > 0 ? ExitCode::kSomeFailed : ExitCode::kOk;
  }

 private:
  void Work() {
    while (!session_.interrupt.raised() && !unreachable_) {
      const size_t index = next_++;
      if (index >= lines_.size()) return;
      if (output_.IsDone(index)) continue;
      std::optional<Json> result = Answer(lines_[index]);
      if (result) output_.Put(index, *result);
    }
  }

  // The result line, or nothing when interrupted or when the server has gone.
  std::optional<Json> Answer(const std::string& line) {
    Json id;
    try {
      const PromptInput input = ParsePrompt(line, defaults_);
      id = input.id;
      return Try(input, make_call_(input));
    } catch (const PromptError& error) {
      if (id.is_null()) id = IdOf(line);
      return ErrorJson(id, DescribeError(error));
    }
  }

  std::optional<Json> Try(const PromptInput& input, const LineCall& call) {
    for (int unavailable = 0;;) {
      grpc::ClientContext context;
      const Interrupt::Guard guard(session_.interrupt, context);
      Json result;
      const grpc::Status status = call(client_, context, &result);
      if (session_.interrupt.raised()) return std::nullopt;
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE) reached_ = true;
      if (status.ok()) return result;
      const std::optional<std::chrono::milliseconds> delay = GetErrorDetail(status).retry_delay;
      if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
        if (++unavailable > (reached_ ? kUnavailableRetries : 1)) {
          if (!unreachable_.exchange(true)) ReportError(DescribeError(status), input.prompt);
          return std::nullopt;
        }
      } else if (!delay) {  // The server does not ask to come again: this prompt has failed.
        return ErrorJson(input.id, DescribeError(status));
      }
      const int doublings = std::max(unavailable - 1, 0);
      Sleep(delay.value_or(kRetryDelay * (1 << doublings)));
    }
  }

  // Ends early when interrupted.
  void Sleep(std::chrono::milliseconds duration) const {
    const auto end = std::chrono::steady_clock::now() + duration;
    while (!session_.interrupt.raised() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::min(duration, kInterruptCheck));
    }
  }

  Session& session_;
  const LineOptions& options_;
  const v1::Prompt& defaults_;
  const MakeLineCall& make_call_;
  const Client client_;
  const std::vector<std::string> lines_;
  OrderedOutput output_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> reached_{false};  // The server has answered at least once.
  std::atomic<bool> unreachable_{false};
};

}  // namespace

void AddLineFlags(CLI::App& app, LineOptions& options) {
  app.add_option("IN", options.input_file, "JSONL of prompts, - for standard input")->required();
  app.add_option("-o,--output", options.output_file, "JSONL of results")->required();
  app.add_option("--concurrency", options.concurrency, "Prompts in flight")
      ->check(CLI::Range(1, kMaxConcurrency))
      ->capture_default_str();
  app.add_flag("--resume", options.resume, "Keep the answers that the output file already holds");
}

ExitCode RunLines(Session& session, const LineOptions& options, const v1::Prompt& defaults,
                  const MakeLineCall& make_call) {
  std::error_code ignored;
  if (std::filesystem::equivalent(options.input_file, options.output_file, ignored)) {
    throw CLI::ValidationError("--output", "is the input file");
  }
  return LineRunner(session, options, defaults, make_call).Run();
}

}  // namespace structattn::client
