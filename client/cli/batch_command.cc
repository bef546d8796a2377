// `structattn batch`: a JSONL of prompts to a JSONL of answers in input order.
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/line_runner.h"

namespace structattn::client {
namespace {

struct BatchOptions {
  RequestOptions request;
  LineOptions lines;
};

ExitCode RunBatch(Session& session, const BatchOptions& options) {
  const auto make_request = [&](const PromptInput& input) {
    v1::GenerateBatchRequest message;
    *message.mutable_generate() = MakeRequest(session.options, options.request, input);
    return message;
  };
  return RunLines(session, options.lines,
                  {.defaults = PromptDefaults(options.request.structure),
                   .request = make_request,
                   .result = [](const PromptInput& input, const BatchAnswer& answer) {
                     return GenerationJson(input, answer.generation);
                   }});
}

}  // namespace

void AddBatchCommand(CLI::App& app, Session& session) {
  auto options = std::make_shared<BatchOptions>();
  CLI::App* command = app.add_subcommand("batch", "Answer a JSONL of prompts, in input order");
  AddLineFlags(*command, options->lines);
  AddRequestFlags(*command, options->request);
  command->callback([options, &session] { session.exit_code = RunBatch(session, *options); });
}

}  // namespace structattn::client
