// See options.h.
#include "client/cli/options.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace structattn::client {
namespace {

constexpr size_t kMaxRequestIdBytes = 256;

std::pair<int32_t, float> ParseLogitBias(const std::string& text, const std::string& field) {
  const size_t equals = text.find('=');
  int32_t id = 0;
  float value = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  const bool ok = equals != std::string::npos &&
                  std::from_chars(begin, begin + equals, id).ptr == begin + equals &&
                  std::from_chars(begin + equals + 1, end, value).ptr == end;
  if (!ok) throw PromptError(field, "\"" + text + "\" is not of the form ID=VALUE");
  return {id, value};
}

v1::FusionMethod ParseFusionMethod(const std::string& word, const std::string& field) {
  if (word == "avg") return v1::FUSION_METHOD_AVG;
  if (word == "max") return v1::FUSION_METHOD_MAX;
  if (word == "weighted_avg") return v1::FUSION_METHOD_WEIGHTED_AVG;
  if (word == "weighted_max") return v1::FUSION_METHOD_WEIGHTED_MAX;
  throw PromptError(field, "\"" + word + "\" is none of avg, max, weighted_avg, weighted_max");
}

// Turns what `parse` refuses into a usage error of the flag.
template <typename Parse>
CLI::Validator AcceptedBy(Parse parse) {
  return CLI::Validator(
      [parse](const std::string& word) {
        try {
          parse(word, "");
        } catch (const PromptError& error) {
          return std::string(error.what());
        }
        return std::string();
      },
      "");
}

void FillSampling(const RequestOptions& options, v1::Sampling* sampling) {
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.min_p) sampling->set_min_p(*options.min_p);
  if (options.repetition_penalty) sampling->set_repetition_penalty(*options.repetition_penalty);
  if (options.presence_penalty) sampling->set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling->set_frequency_penalty(*options.frequency_penalty);
  if (options.seed) sampling->set_seed(*options.seed);
  for (const std::string& bias : options.logit_bias) {
    const auto [id, value] = ParseLogitBias(bias, "sampling.logit_bias");
    (*sampling->mutable_logit_bias())[id] = value;
  }
}

// The request_id labels the server's log lines and has a limit; the result line has the whole id.
// The cut lies between characters.
std::string ShortId(const std::string& id) {
  size_t length = std::min(id.size(), kMaxRequestIdBytes);
  while (length < id.size() && length > 0 && (id[length] & 0xC0) == 0x80) --length;
  return id.substr(0, length);
}

// The fields that requests of every kind have.
template <typename Request>
Request StartRequest(const CommonOptions& common, const RequestOptions& options,
                     const PromptInput& input) {
  Request request;
  if (input.id.is_string()) {
    request.set_request_id(ShortId(input.id.get<std::string>()));
  } else if (!input.id.is_null()) {
    request.set_request_id(input.id.dump());
  }
  request.set_model(common.model);
  *request.mutable_prompt() = input.prompt;
  request.set_generated_group(options.generated_group);
  request.set_timeout_ms(options.timeout_ms);
  if (options.no_cache) request.mutable_cache()->set_bypass(true);
  if (!options.cache_salt.empty()) request.mutable_cache()->set_salt(options.cache_salt);
  return request;
}

void FillBranches(const RequestOptions& options, v1::GenerateRequest* request) {
  const size_t cues = options.branch_cues.size();
  if (cues > 1 && cues != options.branches.size()) {
    throw PromptError("branches", std::to_string(cues) + " cues for " +
                                      std::to_string(options.branches.size()) +
                                      " branches; one for all or one for each is needed");
  }
  for (size_t i = 0; i < options.branches.size(); ++i) {
    v1::Branch* branch = request->add_branches();
    branch->set_group(options.branches[i]);
    if (cues > 0) branch->set_branch_cue(options.branch_cues[cues == 1 ? 0 : i]);
    branch->set_parse_special(options.parse_special);
  }
}

// The members are the branches where there are some, else the per-paraphrase prompts.
void FillFusion(const RequestOptions& options, v1::GenerateRequest* request) {
  if (options.fusion.empty()) return;
  v1::Fusion* fusion = request->mutable_fusion();
  fusion->set_method(ParseFusionMethod(options.fusion, "fusion.method"));
  fusion->set_source(options.branches.empty() ? v1::FUSION_SOURCE_PER_PARAPHRASE_PROMPTS
                                              : v1::FUSION_SOURCE_BRANCHES);
  fusion->mutable_weights()->Assign(options.weights.begin(), options.weights.end());
  if (options.confidence_samples) {
    fusion->mutable_confidence()->set_samples(*options.confidence_samples);
  }
  if (options.confidence_temperature) {
    fusion->mutable_confidence()->set_temperature(*options.confidence_temperature);
  }
}

void AddFusionFlags(CLI::App& app, RequestOptions& options) {
  app.add_option("--fusion", options.fusion,
                 "One answer of all paraphrases, each in a prompt of its own (with --branches: of "
                 "the branches): avg, max, weighted_avg or weighted_max")
      ->check(AcceptedBy(ParseFusionMethod));
  CLI::Option* const weights =
      app.add_option("--weights", options.weights,
                     "Weights of the paraphrases for the weighted methods, as 0.5,0.3,0.2")
          ->delimiter(',')
          ->needs("--fusion");
  app.add_option("--confidence", options.confidence_samples,
                 "Weigh each paraphrase by how many of N samples agree with its greedy answer")
      ->needs("--fusion")
      ->excludes(weights);
  app.add_option("--confidence-temperature", options.confidence_temperature,
                 "Temperature of these samples; 1 by default")
      ->needs("--confidence");
}

}  // namespace

void AddStructureFlags(CLI::App& app, StructureOptions& options) {
  app.add_option("--rule", options.rule,
                 "Visibility for prompts without their own: anchored, shared, isolated, causal")
      ->check(AcceptedBy(ParseRulePreset));
  app.add_option("--positions", options.positions, "sequential or aligned")
      ->check(AcceptedBy(ParsePositions));
  app.add_option("--tokenization", options.tokenization, "joint or per_segment")
      ->check(AcceptedBy(ParseTokenization));
  app.add_flag("--no-special-tokens", options.no_special_tokens,
               "Put no BOS in front of prompts that do not say \"add_special_tokens\"");
}

void AddCallFlags(CLI::App& app, RequestOptions& options) {
  AddStructureFlags(app, options.structure);
  app.add_option("--generated-group", options.generated_group,
                 "Group of the generated or scored tokens; 0 by default");
  app.add_option("--timeout-ms", options.timeout_ms, "End the answer after this many milliseconds");
  app.add_flag("--no-cache", options.no_cache, "Compute all keys and values anew and share none");
  app.add_option("--cache-salt", options.cache_salt,
                 "Share keys and values only with requests of the same salt");
}

void AddRequestFlags(CLI::App& app, RequestOptions& options) {
  AddCallFlags(app, options);
  app.add_option("--max-tokens", options.max_tokens, "Generate at most this many tokens");
  app.add_option("--temperature", options.temperature, "0 is greedy (default)");
  app.add_option("--top-k", options.top_k, "Sample from the k most likely tokens");
  app.add_option("--top-p", options.top_p, "Sample from the smallest set of this probability");
  app.add_option("--min-p", options.min_p, "Drop tokens below this share of the best probability");
  app.add_option("--repetition-penalty", options.repetition_penalty, "1 is off");
  app.add_option("--presence-penalty", options.presence_penalty, "0 is off");
  app.add_option("--frequency-penalty", options.frequency_penalty, "0 is off");
  app.add_option("--seed", options.seed, "Key of the random numbers");
  app.add_option("--logit-bias", options.logit_bias, "ID=VALUE, added to that token's logit")
      ->check(AcceptedBy(ParseLogitBias));
  app.add_option("--stop", options.stop, "Stop string; may be given several times");
  app.add_option("--stop-token-id", options.stop_token_ids,
                 "Stop at this token; may be given several times");
  app.add_flag("--ignore-eos", options.ignore_eos, "Continue behind end-of-sequence tokens");
  app.add_option("--logprobs", options.logprobs,
                 "Also give the K best tokens for each generated one");
  app.add_option("--branches", options.branches,
                 "One continuation in each of these groups, as 1,2,3")
      ->delimiter(',')
      ->excludes("--generated-group");
  app.add_option("--branch-cue", options.branch_cues,
                 "Text in front of a branch; one for all branches, or one for each, in order")
      ->needs("--branches");
  app.add_flag("--parse-special", options.parse_special,
               "Text of --branch-cue and of an ad hoc prompt that looks like a special token "
               "becomes it; a prompt file says \"parse_special\" for each segment");
  app.add_option("--n", options.n, "Samples of each continuation");
  app.add_option("--best-of", options.best_of,
                 "Draw this many samples and answer the --n most likely ones");
  AddFusionFlags(app, options);
}

v1::Prompt PromptDefaults(const StructureOptions& options) {
  v1::Prompt prompt;
  if (!options.rule.empty()) {
    prompt.mutable_rule()->set_preset(ParseRulePreset(options.rule, "rule"));
  }
  if (!options.positions.empty()) {
    prompt.set_positions(ParsePositions(options.positions, "positions"));
  }
  if (!options.tokenization.empty()) {
    prompt.set_tokenization(ParseTokenization(options.tokenization, "tokenization"));
  }
  if (options.no_special_tokens) prompt.set_add_special_tokens(false);
  return prompt;
}

v1::GenerateRequest MakeRequest(const CommonOptions& common, const RequestOptions& options,
                                const PromptInput& input) {
  auto request = StartRequest<v1::GenerateRequest>(common, options, input);
  FillSampling(options, request.mutable_sampling());
  v1::Stopping* stopping = request.mutable_stopping();
  if (options.max_tokens) stopping->set_max_tokens(*options.max_tokens);
  stopping->mutable_stop_strings()->Assign(options.stop.begin(), options.stop.end());
  stopping->mutable_stop_token_ids()->Assign(options.stop_token_ids.begin(),
                                             options.stop_token_ids.end());
  stopping->set_ignore_eos(options.ignore_eos);
  request.mutable_output()->set_top_logprobs(options.logprobs);
  request.mutable_output()->set_echo(true);
  FillBranches(options, &request);
  FillFusion(options, &request);
  if (options.n) request.set_n(*options.n);
  if (options.best_of) request.set_best_of(*options.best_of);
  return request;
}

v1::ScoreRequest MakeScoreRequest(const CommonOptions& common, const RequestOptions& options,
                                  const PromptInput& input) {
  auto request = StartRequest<v1::ScoreRequest>(common, options, input);
  request.mutable_continuations()->Assign(input.continuations.begin(), input.continuations.end());
  return request;
}

}  // namespace structattn::client
