// `structattn batch`: a JSONL of prompts to a JSONL of results in input order, over one stream at a
// time. When a stream breaks, the prompts without an answer are asked again over another one.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/files.h"
#include "client/cli/ordered_output.h"

namespace structattn::client {
namespace {

constexpr int kMaxConcurrency = 1024;
// A server that has answered before and is away may be restarting: it gets some 25 s, in delays
// that double; one that never answered gets one. Every answer makes the count begin anew.
constexpr int kRetries = 7;
constexpr std::chrono::milliseconds kRetryDelay{200};
constexpr std::chrono::milliseconds kInterruptCheck{50};

struct BatchFlags {
  RequestOptions request;
  std::string input_file;
  std::string output_file;
  int concurrency = 8;
  bool resume = false;
};

// Refusals of the stream as such, which another stream would meet, too.
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

// Ids in a file may be missing or repeat; those of a stream may not. The server's log shows both.
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

class Batch {
 public:
  Batch(Session& session, const BatchFlags& flags)
      : session_(session),
        flags_(flags),
        defaults_(PromptDefaults(flags.request.structure)),
        client_(session.options.server),
        lines_(ReadLines(flags.input_file)),
        output_({.path = flags.output_file, .resume = flags.resume, .inputs = lines_}),
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
  // A prompt on its way: its place, and what travels beside it.
  struct Sent {
    size_t line;
    PromptInput input;
  };

  // One stream.
  struct Attempt {
    size_t next = 0;     // Into pending_; the writing thread's own.
    size_t answers = 0;  // The reading thread's own, as is the next.
    grpc::Status postponed{grpc::StatusCode::DATA_LOSS, "the stream ended before its last answer"};
    std::mutex mutex;
    size_t requests = 0;          // Guarded by mutex.
    std::map<size_t, Sent> sent;  // By the number of the request. Guarded by mutex.
  };

  // Not OK when prompts are left because it was given up.
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

  // Leaves in pending_ what has no answer; not OK when that is anything.
  grpc::Status AskOnce(Attempt& attempt) {
    grpc::ClientContext context;
    const Interrupt::Guard guard(session_.interrupt, context);
    v1::BatchOptions options;
    options.set_max_in_flight(flags_.concurrency);
    const grpc::Status status = client_.GenerateBatch(
        context, options,
        {.next = [&] { return NextRequest(attempt); },
         .on_answer = [&](size_t n, const grpc::Status& answer,
                          const Generation& generation) { Take(attempt, n, answer, generation); }});
    std::erase_if(pending_, [this](size_t line) { return answered_[line] != 0; });
    return status.ok() && !pending_.empty() ? attempt.postponed : status;
  }

  // On the writing thread. Prompts that cannot be sent are answered here.
  std::optional<v1::GenerateRequest> NextRequest(Attempt& attempt) {
    while (attempt.next < pending_.size() && !session_.interrupt.raised()) {
      const size_t line = pending_[attempt.next++];
      if (std::optional<v1::GenerateRequest> request = MakeRequestOf(line, attempt)) return request;
    }
    return std::nullopt;
  }

  std::optional<v1::GenerateRequest> MakeRequestOf(size_t line, Attempt& attempt) {
    Json id;
    try {
      PromptInput input = ParsePrompt(lines_[line], defaults_);
      id = input.id;
      input.id = WireId(line, id);
      v1::GenerateRequest request = MakeRequest(session_.options, flags_.request, input);
      if (request.ByteSizeLong() > Client::kMaxRequestBytes) {
        Put(line, ErrorJson(id, TooLarge(request.ByteSizeLong())));
        return std::nullopt;
      }
      input.id = std::move(id);
      input.prompt.Clear();
      const std::lock_guard lock(attempt.mutex);
      attempt.sent.emplace(attempt.requests++, Sent{.line = line, .input = std::move(input)});
      return request;
    } catch (const PromptError& error) {
      if (id.is_null()) id = IdOf(lines_[line]);
      Put(line, ErrorJson(id, DescribeError(error)));
      return std::nullopt;
    }
  }

  // On the reading thread.
  void Take(Attempt& attempt, size_t n, const grpc::Status& status, const Generation& generation) {
    std::unique_lock lock(attempt.mutex);
    const auto node = attempt.sent.extract(n);
    lock.unlock();
    if (node.empty()) return;  // Nothing that was asked.
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      attempt.postponed = status;  // Its model is going away, maybe not for good.
      return;
    }
    ++attempt.answers;
    const Sent& sent = node.mapped();
    Put(sent.line, status.ok() ? GenerationJson(sent.input, generation)
                               : ErrorJson(sent.input.id, DescribeError(status)));
  }

  void Put(size_t line, const Json& result) {
    output_.Put(line, result);
    answered_[line] = 1;
  }

  // Ends early when interrupted.
  void Sleep(std::chrono::milliseconds duration) const {
    const auto end = std::chrono::steady_clock::now() + duration;
    while (!session_.interrupt.raised() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::min(duration, kInterruptCheck));
    }
  }

  Session& session_;
  const BatchFlags& flags_;
  const v1::Prompt defaults_;
  const Client client_;
  const std::vector<std::string> lines_;
  OrderedOutput output_;
  std::vector<char> answered_;   // By line; each written by one thread only.
  std::vector<size_t> pending_;  // Lines without an answer; constant while a stream runs.
};

}  // namespace

void AddBatchCommand(CLI::App& app, Session& session) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* command = app.add_subcommand("batch", "Answer a JSONL of prompts, in input order");
  command->add_option("IN", flags->input_file, "JSONL of prompts, - for standard input")
      ->required();
  command->add_option("-o,--output", flags->output_file, "JSONL of results")->required();
  command->add_option("--concurrency", flags->concurrency, "Prompts in flight")
      ->check(CLI::Range(1, kMaxConcurrency))
      ->capture_default_str();
  command->add_flag("--resume", flags->resume,
                    "Keep the answers that the output file already holds");
  AddRequestFlags(*command, flags->request);
  command->callback([flags, &session] {
    std::error_code ignored;
    if (std::filesystem::equivalent(flags->input_file, flags->output_file, ignored)) {
      throw CLI::ValidationError("--output", "is the input file");
    }
    session.exit_code = Batch(session, *flags).Run();
  });
}

}  // namespace structattn::client
