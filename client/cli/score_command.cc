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
  const auto make_request = [&](const PromptInput& input) {
    v1::GenerateBatchRequest message;
    *message.mutable_score() = MakeScoreRequest(session.options, options.request, input);
    return message;
  };
  return RunLines(session, options.lines,
                  {.defaults = PromptDefaults(options.request.structure),
                   .request = make_request,
                   .result = [](const PromptInput& input, const BatchAnswer& answer) {
                     return ScoresJson(input, answer.scores);
                   }});
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
