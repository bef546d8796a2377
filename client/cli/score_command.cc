// `structattn score`: a JSONL of prompts with continuations to a JSONL of their
// log-likelihoods in input order.
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/line_runner.h"

namespace structattn::client {
namespace {

struct ScoreOptions {
  RequestOptions request;
  LineOptions lines;
};

ExitCode RunScore(Session& session, const ScoreOptions& options) {
  const auto make_call = [&](const PromptInput& input) -> LineCall {
    return [&input, request = MakeScoreRequest(session.options, options.request, input)](
               const Client& client, grpc::ClientContext& context, Json* result) {
      v1::ScoreResponse response;
      const grpc::Status status = client.Score(context, request, &response);
      if (status.ok()) *result = ScoresJson(input, response);
      return status;
    };
  };
  return RunLines(session, options.lines, PromptDefaults(options.request.structure), make_call);
}

}  // namespace

void AddScoreCommand(CLI::App& app, Session& session) {
  auto options = std::make_shared<ScoreOptions>();
  CLI::App* command = app.add_subcommand("score", "Score the continuations of a JSONL of prompts");
  AddLineFlags(*command, options->lines);
  AddCallFlags(*command, options->request);
  command->callback([options, &session] { session.exit_code = RunScore(session, *options); });
}

}  // namespace structattn::client
