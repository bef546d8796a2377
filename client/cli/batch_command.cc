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
  const auto make_call = [&](const PromptInput& input) -> LineCall {
    return [&input, request = MakeRequest(session.options, options.request, input)](
               const Client& client, grpc::ClientContext& context, Json* result) {
      Generation generation;
      const grpc::Status status = client.Generate(context, request, {}, &generation);
      if (status.ok()) *result = GenerationJson(input, generation);
      return status;
    };
  };
  return RunLines(session, options.lines, PromptDefaults(options.request.structure), make_call);
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
