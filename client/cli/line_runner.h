// Turns a JSONL of prompts into a JSONL of results in input order, over one stream at a time. When
// a stream breaks, the prompts without an answer are asked again over another one. What is asked
// and what a result line says is the job's; nothing here knows it.
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
  v1::Prompt defaults;  // Holds where a line names nothing of its own.
  // Makes the request, with the line's id as request_id. May throw PromptError.
  std::function<v1::GenerateBatchRequest(const PromptInput&)> request;
  std::function<Json(const PromptInput&, const BatchAnswer&)> result;
};

// Runs all lines. Throws CLI::ParseError when the files are not usable.
ExitCode RunLines(Session& session, const LineOptions& options, const LineJob& job);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_LINE_RUNNER_H_
