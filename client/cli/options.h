// What the command line asks for: the flags that all subcommands share and those of a request, and
// how they become proto. Only words are checked here; what they mean is the server's to judge.
#ifndef STRUCTATTN_CLIENT_CLI_OPTIONS_H_
#define STRUCTATTN_CLIENT_CLI_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "client/prompt_json.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::client {

struct CommonOptions {
  std::string server = "127.0.0.1:50051";
  std::string model;
  bool json = false;
};

// What holds for prompts that do not say it themselves.
struct StructureOptions {
  std::string rule;
  std::string positions;
  std::string tokenization;
  bool no_special_tokens = false;
};

struct RequestOptions {
  StructureOptions structure;
  std::optional<int32_t> max_tokens;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;  // Entries are "ID=VALUE".
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t logprobs = 0;
  std::vector<int32_t> branches;
  std::vector<std::string> branch_cues;
  bool parse_special = false;  // Of branch cues and of the pieces of an ad hoc prompt.
  std::optional<int32_t> n;
  std::optional<int32_t> best_of;
  std::string fusion;
  std::vector<double> weights;
  std::optional<int32_t> confidence_samples;
  std::optional<float> confidence_temperature;
  int32_t generated_group = 0;
  int64_t timeout_ms = 0;
  bool no_cache = false;
  std::string cache_salt;
};

void AddStructureFlags(CLI::App& app, StructureOptions& options);
// Adds the flags that do not concern generating: structure, group, time and cache.
void AddCallFlags(CLI::App& app, RequestOptions& options);
void AddRequestFlags(CLI::App& app, RequestOptions& options);

// Unknown words were refused when the flags were parsed.
v1::Prompt PromptDefaults(const StructureOptions& options);
v1::GenerateRequest MakeRequest(const CommonOptions& common, const RequestOptions& options,
                                const PromptInput& input);
v1::ScoreRequest MakeScoreRequest(const CommonOptions& common, const RequestOptions& options,
                                  const PromptInput& input);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_OPTIONS_H_
