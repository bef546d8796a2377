// See score_codec.h.
#include "server/rpc/score_codec.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"
#include "server/rpc/request_checks.h"
#include "server/rpc/response_codec.h"

namespace structattn {
namespace {

constexpr int kMaxContinuations = 256;
constexpr int kMaxCandidates = 1024;
constexpr int64_t kMaxReadLogprobs = int64_t{1} << 20;  // 4 MiB of a reply.
constexpr int32_t kLeastWindowTokens = 16;

absl::StatusOr<engine::ContinuationText> DecodeContinuation(const std::string& field,
                                                            const v1::Continuation& continuation) {
  switch (continuation.content_case()) {
    case v1::Continuation::kText:
      return engine::ContinuationText(continuation.text());
    case v1::Continuation::kTokenIds:
      return engine::ContinuationText(std::vector<int32_t>(continuation.token_ids().ids().begin(),
                                                           continuation.token_ids().ids().end()));
    case v1::Continuation::CONTENT_NOT_SET:
      break;
  }
  return engine::InvalidField(field, "CONTENT_MISSING", "one of text, token_ids must be set");
}

absl::StatusOr<std::vector<engine::ContinuationText>> DecodeContinuations(
    const v1::ScoreRequest& request, const RequestLimits& limits) {
  STRUCTATTN_RETURN_IF_ERROR(
      CheckCount("continuations", request.continuations_size(), kMaxContinuations));
  std::vector<engine::ContinuationText> texts;
  int64_t bytes = 0;
  for (int i = 0; i < request.continuations_size(); ++i) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        engine::ContinuationText text,
        DecodeContinuation(absl::StrCat("continuations[", i, "]"), request.continuations(i)));
    bytes += static_cast<int64_t>(request.continuations(i).text().size());
    texts.push_back(std::move(text));
  }
  if (bytes <= limits.max_prompt_bytes) return texts;
  return engine::InvalidField(
      "continuations", "CONTINUATIONS_TOO_LARGE",
      absl::StrCat(bytes, " bytes of text; at most ", limits.max_prompt_bytes, " are allowed"));
}

absl::Status CheckCandidates(const v1::ReadOuts& read_outs, int64_t vocabulary_size) {
  STRUCTATTN_RETURN_IF_ERROR(CheckTopLogprobs("read_outs.top_logprobs", read_outs.top_logprobs()));
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("read_outs.candidate_token_ids",
                                        read_outs.candidate_token_ids_size(), kMaxCandidates));
  for (int i = 0; i < read_outs.candidate_token_ids_size(); ++i) {
    STRUCTATTN_RETURN_IF_ERROR(CheckTokenId(absl::StrCat("read_outs.candidate_token_ids[", i, "]"),
                                            read_outs.candidate_token_ids(i), vocabulary_size));
  }
  if (read_outs.candidate_token_ids().empty() && read_outs.top_logprobs() == 0) {
    return engine::InvalidField("read_outs", "NOTHING_TO_READ",
                                "one of candidate_token_ids, top_logprobs is needed");
  }
  return absl::OkStatus();
}

// The places, ascending, each once.
absl::StatusOr<std::vector<int32_t>> DecodePlaces(const v1::ReadOuts& read_outs,
                                                  const Structure& structure) {
  std::vector<int32_t> places;
  for (int i = 0; i < read_outs.token_indices_size(); ++i) {
    const int32_t index = read_outs.token_indices(i);
    if (index < 0 || index >= structure.size()) {
      return engine::InvalidField(absl::StrCat("read_outs.token_indices[", i, "]"),
                                  "VALUE_OUT_OF_RANGE",
                                  absl::StrCat(index, " is not in 0..", structure.size() - 1));
    }
    places.push_back(index);
  }
  if (read_outs.group_ends()) {
    uint64_t seen = 0;
    for (auto run = structure.runs().rbegin(); run != structure.runs().rend(); ++run) {
      if ((seen >> run->group & 1) == 0) places.push_back(run->end - 1);
      seen |= uint64_t{1} << run->group;
    }
  }
  if (places.empty()) {
    return engine::InvalidField("read_outs", "NOTHING_TO_READ",
                                "no place; one of token_indices, group_ends is needed");
  }
  std::ranges::sort(places);
  places.erase(std::unique(places.begin(), places.end()), places.end());
  const int64_t numbers =
      static_cast<int64_t>(places.size()) * read_outs.candidate_token_ids_size();
  STRUCTATTN_RETURN_IF_ERROR(CheckCount("read_outs", numbers, kMaxReadLogprobs));
  return places;
}

absl::StatusOr<int32_t> DecodeEchoBegin(int32_t start, int32_t prompt_tokens) {
  const int32_t begin = start == 0 ? 1 : start;
  if (begin >= 1 && begin < prompt_tokens) return begin;
  return engine::InvalidField(
      "prompt_logprobs_start", "VALUE_OUT_OF_RANGE",
      absl::StrCat(start, " is not in 0..", prompt_tokens - 1,
                   prompt_tokens == 1 ? ": one token, and the first has no score" : ""));
}

// Echo and read-outs, of the prompt on its own; the reply says where they are.
absl::Status AddReads(const v1::ScoreRequest& request, engine::ScoredPrompt* scored,
                      v1::ScoreResponse* reply) {
  const engine::EncodedPrompt& prompt = scored->prompt;
  if (request.has_prompt_logprobs_start()) {
    STRUCTATTN_ASSIGN_OR_RETURN(
        scored->prompt_logprobs_begin,
        DecodeEchoBegin(request.prompt_logprobs_start(), prompt.structure.size()));
    reply->set_prompt_logprobs_start(*scored->prompt_logprobs_begin);
    reply->mutable_prompt_scores()->mutable_token_ids()->Add(
        prompt.token_ids.begin() + *scored->prompt_logprobs_begin, prompt.token_ids.end());
  }
  if (request.has_read_outs()) {
    STRUCTATTN_ASSIGN_OR_RETURN(scored->read_outs,
                                DecodePlaces(request.read_outs(), prompt.structure));
    for (const int32_t token : scored->read_outs) {
      v1::ReadOut* read_out = reply->add_read_outs();
      read_out->set_token_index(token);
      read_out->set_group(prompt.structure.groups()[token]);
    }
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

void Fill(const engine::TokenScores& scores, v1::TokenScores* reply) {
  reply->mutable_logprobs()->Add(scores.logprobs.begin(), scores.logprobs.end());
  reply->mutable_ranks()->Add(scores.ranks.begin(), scores.ranks.end());
}

double Sum(const v1::TokenScores& scores) {
  double sum = 0.0;
  for (const float logprob : scores.logprobs()) sum += logprob;
  return sum;
}

bool IsGreedy(const v1::TokenScores& scores) {
  return std::ranges::all_of(scores.ranks(), [](int32_t rank) { return rank == 1; });
}

template <typename Reply>
void FillCosts(const engine::ScoreEvent& event, Reply* reply) {
  reply->mutable_usage()->set_prompt_tokens(event.prompt_tokens);
  reply->mutable_usage()->set_cached_tokens(event.cached_tokens);
  reply->mutable_timings()->set_queue_ms(absl::ToDoubleMilliseconds(event.queue));
  reply->mutable_timings()->set_prefill_ms(absl::ToDoubleMilliseconds(event.prefill));
  reply->mutable_timings()->set_decode_ms(absl::ToDoubleMilliseconds(event.decode));
}

// The token in front of a text: the tokenizer's own, else an end of sequence.
absl::StatusOr<int32_t> TokenBeforeText(const Model& model) {
  const std::span<const int32_t> prefix = model.tokenizer->special_prefix();
  if (!prefix.empty()) return prefix.back();
  if (!model.config.eos_token_ids.empty()) return model.config.eos_token_ids.front();
  return absl::FailedPreconditionError(
      "the model has neither a BOS nor an EOS token to put in front of the text");
}

absl::StatusOr<std::vector<int32_t>> DecodeText(const v1::Continuation& text, const Model& model,
                                                const RequestLimits& limits) {
  STRUCTATTN_ASSIGN_OR_RETURN(const engine::ContinuationText content,
                              DecodeContinuation("text", text));
  std::vector<int32_t> ids;
  if (const std::string* characters = std::get_if<std::string>(&content)) {
    if (static_cast<int64_t>(characters->size()) > limits.max_prompt_bytes) {
      return engine::InvalidField("text", "PROMPT_TOO_LARGE",
                                  absl::StrCat(characters->size(), " bytes of text; at most ",
                                               limits.max_prompt_bytes, " are allowed"));
    }
    const TextSegment segment = {.text = *characters};
    for (const Token& token : model.tokenizer->Encode({&segment, 1})) ids.push_back(token.id);
  } else {
    ids = std::get<std::vector<int32_t>>(content);
    for (size_t i = 0; i < ids.size(); ++i) {
      STRUCTATTN_RETURN_IF_ERROR(
          CheckTokenId(absl::StrCat("text.token_ids[", i, "]"), ids[i], model.config.vocab_size));
    }
  }
  if (!ids.empty()) return ids;
  return engine::InvalidField("text", "EMPTY_PROMPT", "yields no token; at least one is needed");
}

}  // namespace

absl::StatusOr<DecodedScore> DecodeScoreRequest(const v1::ScoreRequest& request,
                                                const engine::ServedModel& served,
                                                const RequestLimits& limits) {
  const Model& model = *served.model;
  STRUCTATTN_ASSIGN_OR_RETURN(RequestEnvelope envelope, DecodeEnvelope(request));
  if (request.continuations().empty() && !request.has_prompt_logprobs_start() &&
      !request.has_read_outs()) {
    return engine::InvalidField(
        "continuations", "NOTHING_TO_SCORE",
        "empty; one of continuations, prompt_logprobs_start, read_outs is needed");
  }
  if (request.has_read_outs()) {
    STRUCTATTN_RETURN_IF_ERROR(CheckCandidates(request.read_outs(), model.config.vocab_size));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<engine::ContinuationText> texts,
                              DecodeContinuations(request, limits));
  STRUCTATTN_ASSIGN_OR_RETURN(engine::Prompt prompt, DecodePrompt(request.prompt()));
  STRUCTATTN_ASSIGN_OR_RETURN(
      engine::EncodedContinuations encoded,
      engine::EncodeContinuations(std::move(prompt), request.generated_group(), texts,
                                  *model.tokenizer, LimitsFor(model, limits)));
  DecodedScore decoded;
  const Structure& structure = encoded.prompts.front().prompt.structure;
  *decoded.reply.mutable_provenance() = EncodeProvenance(served, structure, /*seed=*/0);
  STRUCTATTN_RETURN_IF_ERROR(AddReads(request, &encoded.prompts.front(), &decoded.reply));
  DropUnread(&encoded);
  for (const auto& [at, continuation] : encoded.places) {
    const std::vector<int32_t>& ids = encoded.prompts[at].continuations[continuation];
    decoded.reply.add_scores()->mutable_tokens()->mutable_token_ids()->Add(ids.begin(), ids.end());
  }
  decoded.places = std::move(encoded.places);
  decoded.request.request_id = request.request_id();
  decoded.request.prompts = std::move(encoded.prompts);
  decoded.request.candidates.assign(request.read_outs().candidate_token_ids().begin(),
                                    request.read_outs().candidate_token_ids().end());
  decoded.request.top_logprobs = request.read_outs().top_logprobs();
  decoded.request.cache = std::move(envelope.cache);
  decoded.request.arrival = envelope.arrival;
  decoded.request.deadline = envelope.deadline;
  return decoded;
}

void FillScores(const engine::ScoreEvent& event,
                std::span<const engine::EncodedContinuations::Place> places,
                v1::ScoreResponse* reply) {
  for (size_t i = 0; i < places.size(); ++i) {
    v1::ContinuationScore* score = reply->mutable_scores(static_cast<int>(i));
    Fill(event.prompts[places[i].prompt].continuations[places[i].continuation],
         score->mutable_tokens());
    score->set_logprob(Sum(score->tokens()));
    score->set_is_greedy(IsGreedy(score->tokens()));
  }
  const engine::PromptScores& first = event.prompts.front();
  if (reply->has_prompt_scores()) Fill(first.prompt_logprobs, reply->mutable_prompt_scores());
  for (int i = 0; i < reply->read_outs_size(); ++i) {
    const engine::ReadOut& read = first.read_outs[i];
    v1::ReadOut* read_out = reply->mutable_read_outs(i);
    read_out->mutable_candidate_logprobs()->Add(read.candidate_logprobs.begin(),
                                                read.candidate_logprobs.end());
    if (!read.top_logprobs.empty()) {
      *read_out->mutable_top_logprobs() = EncodeTopLogprobs(read.top_logprobs);
    }
  }
  FillCosts(event, reply);
}

absl::StatusOr<DecodedRolling> DecodeScoreRollingRequest(const v1::ScoreRollingRequest& request,
                                                         const engine::ServedModel& served,
                                                         const RequestLimits& limits) {
  const Model& model = *served.model;
  STRUCTATTN_ASSIGN_OR_RETURN(RequestEnvelope envelope, DecodeEnvelope(request));
  const int64_t context = model.config.context_length;
  const int32_t window = request.window_tokens();
  if (window != 0 && (window < kLeastWindowTokens || window > context)) {
    return engine::InvalidField("window_tokens", "VALUE_OUT_OF_RANGE",
                                absl::StrCat(window, " is not in ", kLeastWindowTokens, "..",
                                             context, ", and 0 means ", context));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                              DecodeText(request.text(), model, limits));
  STRUCTATTN_ASSIGN_OR_RETURN(const int32_t before, TokenBeforeText(model));
  DecodedRolling decoded;
  decoded.request.request_id = request.request_id();
  decoded.request.prompts =
      engine::CutIntoWindows(ids, before, window == 0 ? static_cast<int32_t>(context) : window);
  decoded.request.cache = std::move(envelope.cache);
  decoded.request.arrival = envelope.arrival;
  decoded.request.deadline = envelope.deadline;
  decoded.reply.mutable_tokens()->mutable_token_ids()->Add(ids.begin(), ids.end());
  decoded.reply.set_windows(static_cast<int32_t>(decoded.request.prompts.size()));
  *decoded.reply.mutable_provenance() =
      EncodeProvenance(served, decoded.request.prompts.front().prompt.structure, /*seed=*/0);
  return decoded;
}

void FillScores(const engine::ScoreEvent& event, v1::ScoreRollingResponse* reply) {
  for (const engine::PromptScores& window : event.prompts) {
    Fill(window.continuations.front(), reply->mutable_tokens());
  }
  reply->set_logprob(Sum(reply->tokens()));
  reply->set_is_greedy(IsGreedy(reply->tokens()));
  FillCosts(event, reply);
}

}  // namespace structattn
