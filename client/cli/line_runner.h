// A JSONL of prompts to a JSONL of results in input order, many calls at a time, each tried again
// while the server is full or away. Used by the subcommands that work on files.
#ifndef STRUCTATTN_CLIENT_CLI_LINE_RUNNER_H_
#define STRUCTATTN_CLIENT_CLI_LINE_RUNNER_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "client/cli/commands.h"
#include "client/result_json.h"

namespace structattn::client {

struct LineOptions {
  std::string input_file;
  std::string output_file;
  int concurrency = 8;
  bool resume = false;
};
void AddLineFlags(CLI::App& app, LineOptions& options);

// One call to the server; *result is its result line when the status is OK.
using LineCall = std::function<grpc::Status(const Client&, grpc::ClientContext&, Json* result)>;
// The call for one prompt, which outlives it. May throw PromptError.
using MakeLineCall = std::function<LineCall(const PromptInput&)>;

// Runs all lines. Throws CLI::ParseError when the files are not usable.
ExitCode RunLines(Session& session, const LineOptions& options, const v1::Prompt& defaults,
                  const MakeLineCall& make_call);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_LINE_RUNNER_H_
