// Implements prepare_score.h.
#include "server/serving/prepare_score.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/serving/checks.h"
#include "server/serving/prepare_generate.h"

namespace structattn::serving {

using engine::InvalidField;

namespace {

absl::Status CheckContinuationTexts(const ScoreRequest& request, const Limits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("continuations",
                                        static_cast<int64_t>(request.continuations.size()),
                                        Limits::kMaxScoredContinuations));
  int64_t bytes = 0;
  for (const engine::ContinuationText& continuation : request.continuations) {
    const auto* text = std::get_if<std::string>(&continuation.content);
    if (text != nullptr) bytes += static_cast<int64_t>(text->size());
  }
  if (bytes <= limits.max_prompt_bytes) return absl::OkStatus();
  return InvalidField(
      "continuations", "CONTINUATIONS_TOO_LARGE",
      absl::StrCat(bytes, " bytes of text; at most ", limits.max_prompt_bytes, " are allowed"));
}

absl::Status CheckCandidates(const ReadOutsRequest& read_outs, int64_t vocabulary_size) {
  STRUCTATTN_RETURN_IF_ERROR(CheckTopLogprobs("read_outs.top_logprobs", read_outs.top_logprobs));
  const std::vector<int32_t>& ids = read_outs.candidate_token_ids;
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("read_outs.candidate_token_ids",
                                        static_cast<int64_t>(ids.size()), Limits::kMaxCandidates));
  for (size_t i = 0; i < ids.size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(absl::StrCat("read_outs.candidate_token_ids[", i, "]"),
                                            ids[i], vocabulary_size));
  }
  if (!ids.empty() || read_outs.top_logprobs != 0) return absl::OkStatus();
  return InvalidField("read_outs", "NOTHING_TO_READ",
                      "one of candidate_token_ids, top_logprobs is needed");
}

// The token indices to read at, ascending, each once.
absl::StatusOr<std::vector<int32_t>> FindPlaces(const ReadOutsRequest& read_outs,
                                                const Structure& structure) {
  std::vector<int32_t> places;
  for (size_t i = 0; i < read_outs.token_indices.size(); ++i) {
    const int32_t index = read_outs.token_indices[i];
    if (index < 0 || index >= structure.size()) {
      return InvalidField(absl::StrCat("read_outs.token_indices[", i, "]"), "VALUE_OUT_OF_RANGE",
                          absl::StrCat(index, " is not in 0..", structure.size() - 1));
    }
    places.push_back(index);
  }
  if (read_outs.group_ends) {
    uint64_t seen = 0;
    for (auto run = structure.runs().rbegin(); run != structure.runs().rend(); ++run) {
      if ((seen >> run->group & 1) == 0) places.push_back(run->end - 1);
      seen |= uint64_t{1} << run->group;
    }
  }
  if (places.empty()) {
    return InvalidField("read_outs", "NOTHING_TO_READ",
                        "no place; one of token_indices, group_ends is needed");
  }
  std::ranges::sort(places);
  places.erase(std::unique(places.begin(), places.end()), places.end());
  const int64_t numbers =
      static_cast<int64_t>(places.size() * read_outs.candidate_token_ids.size());
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("read_outs", numbers, Limits::kMaxReadLogprobs));
  return places;
}

// The first token has no score, so 0 means 1.
absl::StatusOr<int32_t> PromptLogprobsBegin(int32_t start, int32_t prompt_tokens) {
  const int32_t begin = start == 0 ? 1 : start;
  if (begin >= 1 && begin < prompt_tokens) return begin;
  return InvalidField(
      "prompt_logprobs_start", "VALUE_OUT_OF_RANGE",
      absl::StrCat(start, " is not in 0..", prompt_tokens - 1,
                   prompt_tokens == 1 ? ": one token, and the first has no score" : ""));
}

// Prompt log-probabilities and read-outs, of the prompt on its own; the answer says where they are.
absl::Status AddPromptReads(const ScoreRequest& request, engine::ScoredPrompt* scored,
                            ScoreAnswer* answer) {
  const engine::EncodedPrompt& prompt = scored->prompt;
  if (request.prompt_logprobs_start.has_value()) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        scored->prompt_logprobs_begin,
        PromptLogprobsBegin(*request.prompt_logprobs_start, prompt.structure.size()));
    answer->prompt_logprobs_start = *scored->prompt_logprobs_begin;
    answer->prompt.emplace().token_ids.assign(
        prompt.token_ids.begin() + *scored->prompt_logprobs_begin, prompt.token_ids.end());
  }
  if (!request.read_outs.has_value()) return absl::OkStatus();
  STRUCTATTN_ASSIGN_OR_RETURN(scored->read_outs, FindPlaces(*request.read_outs, prompt.structure));
  for (const int32_t token : scored->read_outs) {
    answer->read_outs.push_back({.token_index = token, .group = prompt.structure.groups()[token]});
  }
  return absl::OkStatus();
}

// A prompt from which nothing is read is not computed.
void DropUnread(engine::EncodedContinuations* encoded) {
  const engine::ScoredPrompt& first = encoded->prompts.front();
  if (!first.continuations.empty() || first.prompt_logprobs_begin.has_value() ||
      !first.read_outs.empty()) {
    return;
  }
  encoded->prompts.erase(encoded->prompts.begin());
  for (engine::EncodedContinuations::Place& place : encoded->places) --place.prompt;
}

// What stands for an empty prompt, and in front of a text: BOS, else an end of sequence, as in
// lm-evaluation-harness. A BOS that ends texts, too, is a file's word for a tokenizer that has none
// (Qwen). Nothing for a model that has neither.
std::optional<int32_t> EmptyPromptToken(const Model& model) {
  const std::span<const int32_t> prefix = model.tokenizer->special_prefix();
  if (!prefix.empty()) return prefix.back();
  const std::optional<int32_t>& bos = model.config.bos_token_id;
  const std::vector<int32_t>& ends = model.config.eos_token_ids;
  if (bos.has_value() && std::ranges::find(ends, *bos) == ends.end()) return bos;
  if (!ends.empty()) return ends.front();
  return std::nullopt;
}

absl::Status CheckText(const engine::ContinuationText& text, const Model& model,
                       const Limits& limits) {
  if (const std::string* characters = std::get_if<std::string>(&text.content)) {
    if (static_cast<int64_t>(characters->size()) <= limits.max_prompt_bytes) {
      return absl::OkStatus();
    }
    return InvalidField("text", "PROMPT_TOO_LARGE",
                        absl::StrCat(characters->size(), " bytes of text; at most ",
                                     limits.max_prompt_bytes, " are allowed"));
  }
  const auto& ids = std::get<std::vector<int32_t>>(text.content);
  for (size_t i = 0; i < ids.size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(
        CheckTokenId(absl::StrCat("text.token_ids[", i, "]"), ids[i], model.config.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TokenBeforeText(const ScoreRollingRequest& request, const Model& model) {
  const std::optional<int32_t> token =
      request.prefix_token_id.has_value() ? request.prefix_token_id : EmptyPromptToken(model);
  if (token.has_value()) return *token;
  return InvalidField("prefix_token_id", "PREFIX_TOKEN_MISSING",
                      "absent; the model has neither a BOS nor an EOS token to put in front");
}

// A text that parses special tokens may begin with the token `before` it: there is one of these.
absl::StatusOr<std::vector<int32_t>> EncodeRollingText(const ScoreRollingRequest& request,
                                                       int32_t before, const Model& model,
                                                       const std::stop_token& stop) {
  std::vector<int32_t> ids;
  if (request.text.is_text()) {
    const TextSegment text = {.text = std::get<std::string>(request.text.content),
                              .parse_special = request.text.parse_special};
    STRUCTATTN_ASSIGN_OR_RETURN(ids, engine::EncodeText(text, *model.tokenizer, stop));
    STRUCTATTN_RETURN_IF_ERROR(
        engine::CheckEmbeddedIds("text", ids, *model.tokenizer, model.config.vocab_size));
    const bool has_its_own = text.parse_special && !ids.empty() && ids.front() == before;
    if (has_its_own) ids.erase(ids.begin());
  } else {
    ids = std::get<std::vector<int32_t>>(request.text.content);
  }
  if (!ids.empty()) return ids;
  return InvalidField("text", "EMPTY_PROMPT", "yields no token to score; at least one is needed");
}

}  // namespace

double ScoredTokens::logprob() const {
  double sum = 0.0;
  for (const float logprob : scores.logprobs) sum += logprob;
  return sum;
}

bool ScoredTokens::is_greedy() const {
  return std::ranges::all_of(scores.ranks, [](int32_t rank) { return rank == 1; });
}

absl::Status CheckScore(const ScoreRequest& request, const Model& model, const Limits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckHeader(request.header));
  if (request.continuations.empty() && !request.prompt_logprobs_start.has_value() &&
      !request.read_outs.has_value()) {
    return InvalidField("continuations", "NOTHING_TO_SCORE",
                        "empty; one of continuations, prompt_logprobs_start, read_outs is needed");
  }
  if (request.read_outs.has_value()) {
    STRUCTATTN_RETURN_IF_ERROR(CheckCandidates(*request.read_outs, model.config.vocab_size));
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckContinuationTexts(request, limits));
  return engine::CheckPrompt(request.prompt, PromptLimitsFor(model, limits));
}

absl::Status CheckScoreRolling(const ScoreRollingRequest& request, const Model& model,
                               const Limits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(CheckHeader(request.header));
  const int64_t context = model.config.context_length;
  const int32_t window = request.window_tokens;
  if (window != 0 && (window < Limits::kMinWindowTokens || window > context)) {
    return InvalidField("window_tokens", "VALUE_OUT_OF_RANGE",
                        absl::StrCat(window, " is not in ", Limits::kMinWindowTokens, "..", context,
                                     ", and 0 means ", context));
  }
  if (request.prefix_token_id.has_value()) {
    STRUCTATTN_RETURN_IF_ERROR(
        CheckTokenId("prefix_token_id", *request.prefix_token_id, model.config.vocab_size));
  }
  return CheckText(request.text, model, limits);
}

absl::StatusOr<PreparedScore> PrepareScore(const ScoreRequest& request,
                                           const engine::ServedModel& served, const Limits& limits,
                                           const std::stop_token& stop) {
  const Model& model = *served.model;
  engine::PromptLimits prompt_limits = PromptLimitsFor(model, limits);
  prompt_limits.stop = stop;
  prompt_limits.empty_prompt_token = EmptyPromptToken(model);
  STRUCTATTN_ASSIGN_OR_RETURN(
      engine::EncodedContinuations encoded,
      engine::EncodeContinuations(request.prompt, request.generated_group, request.continuations,
                                  *model.tokenizer, prompt_limits));
  PreparedScore prepared;
  const Structure& structure = encoded.prompts.front().prompt.structure;
  prepared.answer.provenance = MakeProvenance(served, &structure, /*seed=*/0);
  STRUCTATTN_RETURN_IF_ERROR(AddPromptReads(request, &encoded.prompts.front(), &prepared.answer));
  DropUnread(&encoded);
  for (const auto& [prompt, continuation] : encoded.places) {
    prepared.answer.continuations.push_back(
        {.token_ids = encoded.prompts[prompt].continuations[continuation], .scores = {}});
  }
  prepared.places = std::move(encoded.places);
  prepared.request.request_id = request.header.request_id;
  prepared.request.prompts = std::move(encoded.prompts);
  if (request.read_outs.has_value()) {
    prepared.request.candidates = request.read_outs->candidate_token_ids;
    prepared.request.top_logprobs = request.read_outs->top_logprobs;
  }
  prepared.request.cache = request.header.cache;
  return prepared;
}

absl::StatusOr<PreparedScore> PrepareScoreRolling(const ScoreRollingRequest& request,
                                                  const engine::ServedModel& served,
                                                  const std::stop_token& stop) {
  const Model& model = *served.model;
  const int64_t context = model.config.context_length;
  const int32_t window = request.window_tokens;
  STRUCTATTN_ASSIGN_OR_RETURN(const int32_t before, TokenBeforeText(request, model));
  STRUCTATTN_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                              EncodeRollingText(request, before, model, stop));
  PreparedScore prepared;
  prepared.request.request_id = request.header.request_id;
  prepared.request.prompts =
      engine::CutIntoWindows(ids, before, window == 0 ? static_cast<int32_t>(context) : window);
  prepared.request.cache = request.header.cache;
  const int32_t windows = static_cast<int32_t>(prepared.request.prompts.size());
  prepared.answer.windows = windows;
  prepared.answer.continuations.push_back({.token_ids = std::move(ids), .scores = {}});
  for (int32_t i = 0; i < windows; ++i) prepared.places.push_back({.prompt = i, .continuation = 0});
  prepared.answer.provenance =
      MakeProvenance(served, &prepared.request.prompts.front().prompt.structure, /*seed=*/0);
  return prepared;
}

ScoreAnswer CompleteAnswer(PreparedScore prepared, engine::ScoreEvent event) {
  ScoreAnswer answer = std::move(prepared.answer);
  for (size_t i = 0; i < prepared.places.size(); ++i) {
    const auto& [prompt, continuation] = prepared.places[i];
    engine::TokenScores& scores = event.prompts[prompt].continuations[continuation];
    // The windows of a rolling score are pieces of one text.
    engine::TokenScores& target = answer.continuations[answer.windows > 0 ? 0 : i].scores;
    target.logprobs.insert(target.logprobs.end(), scores.logprobs.begin(), scores.logprobs.end());
    target.ranks.insert(target.ranks.end(), scores.ranks.begin(), scores.ranks.end());
  }
  engine::PromptScores& first = event.prompts.front();
  if (answer.prompt.has_value()) answer.prompt->scores = std::move(first.prompt_logprobs);
  for (size_t i = 0; i < answer.read_outs.size(); ++i) {
    answer.read_outs[i].candidate_logprobs = std::move(first.read_outs[i].candidate_logprobs);
    answer.read_outs[i].top_logprobs = std::move(first.read_outs[i].top_logprobs);
  }
  answer.prompt_tokens = event.prompt_tokens;
  answer.cached_tokens = event.cached_tokens;
  answer.queue = event.queue;
  answer.prefill = event.prefill;
  answer.decode = event.decode;
  return answer;
}

}  // namespace structattn::serving
