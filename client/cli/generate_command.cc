// `structattn generate`: answers one prompt and streams the text, or prints it as JSON.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/files.h"

namespace structattn::client {
namespace {

struct GenerateOptions {
  RequestOptions request;
  std::string prompt_file;
  std::string instruction;
  std::vector<std::string> few_shot;
  std::vector<std::string> questions;
  std::string answer_cue;
};

// A prompt from the ad hoc flags. A line break ends every piece but the cue, so that what is typed
// reads like a prompt.
PromptInput AdHocPrompt(const GenerateOptions& options) {
  PromptInput input{
      .id = nullptr, .answers = nullptr, .prompt = PromptDefaults(options.request.structure)};
  auto add = [&](v1::SegmentType type, const std::string& text) {
    v1::Segment* segment = input.prompt.add_segments();
    segment->set_type(type);
    segment->set_text(text);
    segment->set_parse_special(options.request.parse_special);
    return segment;
  };
  if (!options.instruction.empty()) {
    add(v1::SEGMENT_TYPE_INSTRUCTION, options.instruction + "\n");
  }
  for (const std::string& shot : options.few_shot) add(v1::SEGMENT_TYPE_FEW_SHOT, shot + "\n");
  for (size_t i = 0; i < options.questions.size(); ++i) {
    add(v1::SEGMENT_TYPE_QUESTION, options.questions[i] + "\n")
        ->set_paraphrase_index(static_cast<int32_t>(i));
  }
  if (!options.answer_cue.empty()) add(v1::SEGMENT_TYPE_ANSWER_CUE, options.answer_cue);
  return input;
}

PromptInput GetPrompt(const GenerateOptions& options) {
  if (options.prompt_file.empty()) return AdHocPrompt(options);
  return ParsePrompt(ReadFile(options.prompt_file), PromptDefaults(options.request.structure));
}

// Whether there may be several continuations, whose pieces would mix.
bool IsMany(const v1::GenerateRequest& request) {
  if (request.has_fusion()) return false;
  return request.branches_size() > 1 || request.n() > 1;
}

void PrintPiece(const v1::Chunk& chunk) {
  std::fwrite(chunk.text().data(), 1, chunk.text().size(), stdout);
  std::fflush(stdout);
}

// Prints each continuation below a line that says which one it is.
void PrintAll(const v1::GenerateRequest& request, const Generation& generation) {
  const int samples = request.has_n() ? request.n() : 1;
  for (size_t i = 0; i < generation.continuations.size(); ++i) {
    const Continued& continued = generation.continuations[i];
    std::printf("[group %d", continued.group);
    if (samples > 1) std::printf(", sample %d", static_cast<int>(i) % samples);
    std::printf("]\n%s\n", continued.text.c_str());
  }
}

// Prints, on a terminal only, each member's weight and its log-probability of the whole answer.
void PrintMembers(const Generation& generation) {
  if (!isatty(STDERR_FILENO)) return;
  const auto& members = generation.finished.fusion_members();
  for (int i = 0; i < members.size(); ++i) {
    double sum = 0.0;
    for (const v1::MemberLogprobs& token : generation.continuations.front().member_logprobs) {
      if (i < token.logprobs_size()) sum += token.logprobs(i);
    }
    std::fprintf(stderr, "[group %d: weight %.3f, log-probability of the answer %.3f]\n",
                 members[i].group(), members[i].weight(), sum);
  }
}

// Prints, on a terminal only, one line on stderr about what was streamed on stdout.
void PrintSummary(const Generation& generation) {
  if (!isatty(STDERR_FILENO)) return;
  const v1::Usage& usage = generation.finished.usage();
  const v1::Timings& timings = generation.finished.timings();
  std::fprintf(stderr,
               "[%d prompt (%d cached) + %d generated tokens; prefill %.0f ms, decode %.0f ms]\n",
               usage.prompt_tokens(), usage.cached_tokens(), usage.generated_tokens(),
               timings.prefill_ms(), timings.decode_ms());
}

ExitCode Fail(const Session& session, const PromptInput& input, const ErrorText& error) {
  ReportError(error, input.prompt);
  if (session.options.json) std::puts(Line(ErrorJson(input.id, error)).c_str());
  return ExitCode::kBadRequest;
}

ExitCode RunGenerate(Session& session, const GenerateOptions& options) {
  PromptInput input{.id = nullptr, .answers = nullptr, .prompt = {}};
  v1::GenerateRequest request;
  try {
    input = GetPrompt(options);
    request = MakeRequest(session.options, options.request, input);
  } catch (const PromptError& error) {
    return Fail(session, input, DescribeError(error));
  }
  const Client client(session.options.server);
  grpc::ClientContext context;
  const Interrupt::Guard guard(session.interrupt, context);
  Generation generation;
  const bool streams = !session.options.json && !IsMany(request);
  const Client::OnChunk on_chunk = streams ? PrintPiece : Client::OnChunk();
  const grpc::Status status = client.Generate(context, request, on_chunk, &generation);
  if (streams && !generation.continuations.front().text.empty()) std::puts("");
  if (session.interrupt.raised()) return ExitCode::kInterrupted;
  if (!status.ok()) {
    Fail(session, input, DescribeError(status));
    return ExitCodeFor(status);
  }
  if (session.options.json) {
    std::puts(Line(GenerationJson(input, generation)).c_str());
  } else {
    if (!streams) PrintAll(request, generation);
    PrintMembers(generation);
    PrintSummary(generation);
  }
  switch (generation.finished.reason()) {
    case v1::FINISH_REASON_DEADLINE:
      return ExitCode::kDeadline;
    case v1::FINISH_REASON_CANCELLED:  // The server went down before the answer was complete.
      return ExitCode::kServerError;
    default:
      return ExitCode::kOk;
  }
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Session& session) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Answer one prompt and stream the text");
  CLI::Option* prompt = command->add_option("--prompt", options->prompt_file,
                                            "JSON file of the prompt, - for standard input");
  std::vector<CLI::Option*> ad_hoc = {
      command->add_option("--instruction", options->instruction, "Ad hoc prompt: instruction"),
      command->add_option("--few-shot", options->few_shot, "Ad hoc prompt: example; repeatable"),
      command->add_option("--question", options->questions,
                          "Ad hoc prompt: paraphrase of the question; repeatable"),
      command->add_option("--answer-cue", options->answer_cue, "Ad hoc prompt: what comes last")};
  for (CLI::Option* option : ad_hoc) prompt->excludes(option);
  AddRequestFlags(*command, options->request);
  command->callback([options, &session] {
    const bool empty = options->prompt_file.empty() && options->instruction.empty() &&
                       options->few_shot.empty() && options->questions.empty() &&
                       options->answer_cue.empty();
    if (empty) throw CLI::RequiredError("--prompt FILE, or --question TEXT,");
    session.exit_code = RunGenerate(session, *options);
  });
}

}  // namespace structattn::client
