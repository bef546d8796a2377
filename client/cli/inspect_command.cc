// `structattn inspect`: how the server sees a prompt; nothing is generated.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "client/cli/commands.h"
#include "client/cli/files.h"
#include "client/cli/mask_picture.h"
#include "client/cli/ordered_output.h"

namespace structattn::client {
namespace {

constexpr int kDefaultColumns = 64;
constexpr int kMaxColumns = 100;

struct InspectOptions {
  StructureOptions structure;
  std::string prompt_file;
  std::string svg_file;
  std::string input_file;
  std::string output_file;
};

int TerminalColumns() {
  winsize size{};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? std::min<int>(size.ws_col, kMaxColumns) : kDefaultColumns;
}

void PrintForPeople(const v1::InspectResponse& response) {
  const bool colour = isatty(STDOUT_FILENO);
  std::fputs(TerminalPicture(response, TerminalColumns(), colour).c_str(), stdout);
  for (int g = 0; g < response.visible_size(); ++g) {
    std::printf("group %d sees:", g);
    for (const int32_t group : response.visible(g).groups()) std::printf(" %d", group);
    std::puts("");
  }
  std::printf("%d tokens; %lld of %lld causal pairs visible (%.1f %%)\n", response.tokens_size(),
              static_cast<long long>(response.visible_pairs()),
              static_cast<long long>(response.causal_pairs()),
              100.0 * static_cast<double>(response.visible_pairs()) /
                  static_cast<double>(response.causal_pairs()));
}

grpc::Status Inspect(Session& session, const PromptInput& input, v1::InspectResponse* response) {
  const Client client(session.options.server);
  grpc::ClientContext context;
  const Interrupt::Guard guard(session.interrupt, context);
  v1::InspectRequest request;
  request.set_model(session.options.model);
  *request.mutable_prompt() = input.prompt;
  return client.Inspect(context, request, response);
}

ExitCode RunOne(Session& session, const InspectOptions& options) {
  PromptInput input{.id = nullptr, .answers = nullptr, .prompt = {}};
  grpc::Status status;
  v1::InspectResponse response;
  try {
    input = ParsePrompt(ReadFile(options.prompt_file), PromptDefaults(options.structure));
    status = Inspect(session, input, &response);
  } catch (const PromptError& error) {
    const ErrorText text = DescribeError(error);
    ReportError(text, input.prompt);
    if (session.options.json) std::puts(Line(ErrorJson(input.id, text)).c_str());
    return ExitCode::kBadRequest;
  }
  if (session.interrupt.raised()) return ExitCode::kInterrupted;
  if (!status.ok()) {
    const ErrorText text = DescribeError(status);
    ReportError(text, input.prompt);
    if (session.options.json) std::puts(Line(ErrorJson(input.id, text)).c_str());
    return ExitCodeFor(status);
  }
  if (!options.svg_file.empty()) {
    std::ofstream file(options.svg_file, std::ios::binary);
    file << SvgPicture(response);
    if (!file.flush()) throw CLI::FileError(options.svg_file + ": cannot be written");
  }
  if (session.options.json) {
    std::puts(Line(InspectionJson(input, response)).c_str());
  } else {
    PrintForPeople(response);
  }
  return ExitCode::kOk;
}

// The result line, or nothing when the server has gone.
std::optional<Json> InspectLine(Session& session, const std::string& line,
                                const v1::Prompt& defaults) {
  try {
    const PromptInput input = ParsePrompt(line, defaults);
    v1::InspectResponse response;
    const grpc::Status status = Inspect(session, input, &response);
    if (status.ok()) return InspectionJson(input, response);
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      ReportError(DescribeError(status), input.prompt);
      return std::nullopt;
    }
    return ErrorJson(input.id, DescribeError(status));
  } catch (const PromptError& error) {
    return ErrorJson(IdOf(line), DescribeError(error));
  }
}

ExitCode RunMany(Session& session, const InspectOptions& options) {
  const std::vector<std::string> lines = ReadLines(options.input_file);
  const v1::Prompt defaults = PromptDefaults(options.structure);
  OrderedOutput output({.path = options.output_file, .resume = false, .inputs = lines});
  for (size_t i = 0; i < lines.size() && !session.interrupt.raised(); ++i) {
    const std::optional<Json> result = InspectLine(session, lines[i], defaults);
    if (session.interrupt.raised()) break;
    if (!result) return ExitCode::kUnreachable;
    output.Put(i, *result);
  }
  output.Close();
  if (session.interrupt.raised()) return ExitCode::kInterrupted;
  return output.failed() > 0 ? ExitCode::kSomeFailed : ExitCode::kOk;
}

}  // namespace

void AddInspectCommand(CLI::App& app, Session& session) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show tokens, groups and visibility; generate nothing");
  CLI::Option* prompt = command->add_option("--prompt", options->prompt_file,
                                            "JSON file of one prompt, - for standard input");
  CLI::Option* svg =
      command->add_option("--svg", options->svg_file, "Also draw the mask into this file");
  CLI::Option* input = command->add_option("IN", options->input_file, "JSONL of prompts");
  CLI::Option* output =
      command->add_option("-o,--output", options->output_file, "JSONL of results");
  input->excludes(prompt)->needs(output);
  output->needs(input);
  svg->needs(prompt);
  AddStructureFlags(*command, options->structure);
  command->callback([options, &session] {
    if (options->prompt_file.empty() && options->input_file.empty()) {
      throw CLI::RequiredError("--prompt FILE, or IN.jsonl -o OUT.jsonl,");
    }
    session.exit_code =
        options->prompt_file.empty() ? RunMany(session, *options) : RunOne(session, *options);
  });
}

}  // namespace structattn::client
