// A JSONL of prompts to a JSONL of results in input order, over one stream at a time. When a stream
// breaks, the prompts without an answer are asked again over another one. Used by the subcommands
// that work on files.
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

// What is asked of a prompt, and what its result line says.
struct LineJob {
  v1::Prompt defaults;  // For what a line leaves open.
  // With the line's id as request_id. May throw PromptError.
  std::function<v1::GenerateBatchRequest(const PromptInput&)> request;
  std::function<Json(const PromptInput&, const BatchAnswer&)> result;
};

// Runs all lines. Throws CLI::ParseError when the files are not usable.
ExitCode RunLines(Session& session, const LineOptions& options, const LineJob& job);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_LINE_RUNNER_H_
