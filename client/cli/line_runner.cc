// See line_runner.h.
#include "client/cli/line_runner.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/files.h"
#include "client/cli/ordered_output.h"

namespace structattn::client {
namespace {

constexpr int kMaxConcurrency = 1024;
// A server that has answered before and is away may be restarting: it gets some 25 s, in delays
// that double. One that has never answered gets one retry. Every answer makes the count begin anew.
constexpr int kRetries = 7;
constexpr std::chrono::milliseconds kRetryDelay{200};
constexpr std::chrono::milliseconds kInterruptCheck{50};

// Whether the stream as such was refused, as any other stream would be.
bool IsFinal(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::UNIMPLEMENTED:
      return true;
    default:
      return false;
  }
}

// Ids in a file may be missing or repeat, those of a stream may not: the line's number comes first.
std::string WireId(size_t line, const Json& id) {
  std::string wire = std::to_string(line + 1);
  if (id.is_null()) return wire;
  return wire + ":" + (id.is_string() ? id.get<std::string>() : id.dump());
}

ErrorText TooLarge(size_t bytes) {
  return {.code = CodeName(grpc::StatusCode::RESOURCE_EXHAUSTED),
          .message = "segments: the request has " + std::to_string(bytes) + " bytes; at most " +
                     std::to_string(Client::kMaxRequestBytes) + " are allowed",
          .field = "segments"};
}

class LineRunner {
 public:
  LineRunner(Session& session, const LineOptions& options, const LineJob& job)
      : session_(session),
        options_(options),
        job_(job),
        client_(session.options.server),
        lines_(ReadLines(options.input_file)),
        output_({.path = options.output_file, .resume = options.resume, .inputs = lines_}),
        answered_(lines_.size(), 0) {
    for (size_t i = 0; i < lines_.size(); ++i) {
      if (!output_.IsDone(i)) pending_.push_back(i);
    }
  }

  ExitCode Run() {
    const grpc::Status status = AnswerAll();
    output_.Close();
    if (session_.interrupt.raised()) return ExitCode::kInterrupted;
    if (!status.ok()) {
      ReportError(DescribeError(status), {});
      return ExitCodeFor(status);
    }
    return output_.failed() > 0 ? ExitCode::kSomeFailed : ExitCode::kOk;
  }

 private:
  // A prompt that was sent, with what its result line needs.
  struct Sent {
    size_t line;
    PromptInput input;
  };

  // One stream.
  struct Attempt {
    size_t next = 0;     // Index into pending_; only the writing thread uses it.
    size_t answers = 0;  // Only the reading thread uses it, and `postponed`.
    grpc::Status postponed{grpc::StatusCode::DATA_LOSS, "the stream ended before its last answer"};
    absl::Mutex mutex;
    size_t requests ABSL_GUARDED_BY(mutex) = 0;
    std::map<size_t, Sent> sent ABSL_GUARDED_BY(mutex);  // By the number of the request.
  };

  // An error says that prompts are left without an answer.
  grpc::Status AnswerAll() {
    bool reached = false;
    for (int fruitless = 0; !pending_.empty();) {
      Attempt attempt;
      const grpc::Status status = AskOnce(attempt);
      if (pending_.empty() || session_.interrupt.raised()) break;
      reached |= attempt.answers > 0;
      fruitless = attempt.answers > 0 ? 1 : fruitless + 1;
      if (IsFinal(status) || fruitless > (reached ? kRetries : 1)) return status;
      Sleep(kRetryDelay * (1 << (fruitless - 1)));
    }
    return grpc::Status::OK;
  }

  // Leaves in pending_ the lines without an answer; an error when there are any.
  grpc::Status AskOnce(Attempt& attempt) {
    grpc::ClientContext context;
    const Interrupt::Guard guard(session_.interrupt, context);
    v1::BatchOptions options;
    options.set_max_in_flight(options_.concurrency);
    const grpc::Status status = client_.GenerateBatch(
        context, options,
        {.next = [&] { return NextRequest(attempt); },
         .on_answer = [&](size_t n, const grpc::Status& status,
                          const BatchAnswer& answer) { Take(attempt, n, status, answer); }});
    std::erase_if(pending_, [this](size_t line) { return answered_[line] != 0; });
    return status.ok() && !pending_.empty() ? attempt.postponed : status;
  }

  // Runs on the writing thread. Prompts that cannot be sent are answered here.
  std::optional<v1::GenerateBatchRequest> NextRequest(Attempt& attempt) {
    while (attempt.next < pending_.size() && !session_.interrupt.raised()) {
      const size_t line = pending_[attempt.next++];
      if (auto request = MakeRequestOf(line, attempt)) return request;
    }
    return std::nullopt;
  }

  std::optional<v1::GenerateBatchRequest> MakeRequestOf(size_t line, Attempt& attempt) {
    Json id;
    try {
      PromptInput input = ParsePrompt(lines_[line], job_.defaults);
      id = input.id;
      input.id = WireId(line, id);
      v1::GenerateBatchRequest request = job_.request(input);
      if (request.ByteSizeLong() > Client::kMaxRequestBytes) {
        Put(line, ErrorJson(id, TooLarge(request.ByteSizeLong())));
        return std::nullopt;
      }
      input.id = std::move(id);
      input.prompt.Clear();
      const absl::MutexLock lock(&attempt.mutex);
      attempt.sent.emplace(attempt.requests++, Sent{.line = line, .input = std::move(input)});
      return request;
    } catch (const PromptError& error) {
      if (id.is_null()) id = IdOf(lines_[line]);
      Put(line, ErrorJson(id, DescribeError(error)));
      return std::nullopt;
    }
  }

  // Runs on the reading thread.
  void Take(Attempt& attempt, size_t n, const grpc::Status& status, const BatchAnswer& answer) {
    const auto node = [&] {
      const absl::MutexLock lock(&attempt.mutex);
      return attempt.sent.extract(n);
    }();
    if (node.empty()) return;  // The server answers what was never asked.
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      attempt.postponed = status;  // The model is being unloaded; it may come back.
      return;
    }
    ++attempt.answers;
    const Sent& sent = node.mapped();
    Put(sent.line, status.ok() ? job_.result(sent.input, answer)
                               : ErrorJson(sent.input.id, DescribeError(status)));
  }

  void Put(size_t line, const Json& result) {
    output_.Put(line, result);
    answered_[line] = 1;
  }

  // Returns early when the run is interrupted.
  void Sleep(std::chrono::milliseconds duration) const {
    const auto end = std::chrono::steady_clock::now() + duration;
    while (!session_.interrupt.raised() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::min(duration, kInterruptCheck));
    }
  }

  Session& session_;
  const LineOptions& options_;
  const LineJob& job_;
  const Client client_;
  const std::vector<std::string> lines_;
  OrderedOutput output_;
  std::vector<char> answered_;   // By line; one thread only writes an entry.
  std::vector<size_t> pending_;  // Lines without an answer; constant while a stream runs.
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

ExitCode RunLines(Session& session, const LineOptions& options, const LineJob& job) {
  std::error_code ignored;
  if (std::filesystem::equivalent(options.input_file, options.output_file, ignored)) {
    throw CLI::ValidationError("--output", "is the input file");
  }
  return LineRunner(session, options, job).Run();
}

}  // namespace structattn::client
