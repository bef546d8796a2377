// See result_json.h.
#include "client/result_json.h"

#include <array>

#include "absl/strings/escaping.h"

namespace structattn::client {
namespace {

template <typename Repeated>
Json Array(const Repeated& values) {
  return Json(std::vector<typename Repeated::value_type>(values.begin(), values.end()));
}

std::string FinishReasonWord(v1::FinishReason reason) {
  static constexpr std::array<const char*, 7> kWords = {
      "unspecified", "stop", "stop_token", "stop_string", "length", "cancelled", "deadline"};
  const size_t index = static_cast<size_t>(reason);
  return index < kWords.size() ? kWords[index] : kWords[0];
}

Json ProvenanceJson(const v1::Provenance& provenance) {
  return {{"model", provenance.model()},
          {"model_digest", provenance.model_digest()},
          {"weights_digest", provenance.weights_digest()},
          {"structure_digest", provenance.structure_digest()},
          {"dtype", provenance.dtype()},
          {"weight_format", provenance.weight_format()},
          {"device", provenance.device()},
          {"kernel", provenance.kernel()},
          {"seed", provenance.seed()},
          {"version", provenance.version()}};
}

Json TopLogprobsJson(const std::vector<v1::TopLogprobs>& places) {
  Json result = Json::array();
  for (const v1::TopLogprobs& place : places) {
    Json entries = Json::array();
    for (const v1::TokenLogprob& entry : place.entries()) {
      entries.push_back({{"token_id", entry.token_id()}, {"logprob", entry.logprob()}});
    }
    result.push_back(std::move(entries));
  }
  return result;
}

Json UsageJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"cached_tokens", usage.cached_tokens()},
          {"generated_tokens", usage.generated_tokens()}};
}

Json TimingsJson(const v1::Timings& timings) {
  return {{"queue", timings.queue_ms()},
          {"prefill", timings.prefill_ms()},
          {"decode", timings.decode_ms()}};
}

Json ContinuedJson(const Continued& continued) {
  Json json = {{"group", continued.group},
               {"text", continued.text},
               {"token_ids", continued.token_ids},
               {"logprobs", continued.logprobs},
               {"finish_reason", FinishReasonWord(continued.reason)}};
  if (!continued.top_logprobs.empty()) {
    json["top_logprobs"] = TopLogprobsJson(continued.top_logprobs);
  }
  return json;
}

// Every member's weight, and its log-probability of every token.
Json FusionJson(const Generation& generation) {
  Json members = Json::array();
  for (const v1::FusionMember& member : generation.finished.fusion_members()) {
    members.push_back({{"group", member.group()},
                       {"weight", member.weight()},
                       {"greedy_text", member.greedy_text()},
                       {"agreeing_samples", member.agreeing_samples()}});
  }
  Json logprobs = Json::array();
  for (const v1::MemberLogprobs& token : generation.continuations.front().member_logprobs) {
    logprobs.push_back(Array(token.logprobs()));
  }
  return {{"members", std::move(members)}, {"member_logprobs", std::move(logprobs)}};
}

}  // namespace

Json GenerationJson(const PromptInput& input, const Generation& generation) {
  const v1::Started& started = generation.started;
  const Continued& first = generation.continuations.front();
  Json json = {{"id", input.id},
               {"text", first.text},
               {"token_ids", first.token_ids},
               {"logprobs", first.logprobs},
               {"finish_reason", FinishReasonWord(generation.finished.reason())},
               {"prompt_token_ids", Array(started.prompt_token_ids())},
               {"group_ids", Array(started.group_ids())},
               {"position_ids", Array(started.position_ids())},
               {"usage", UsageJson(generation.finished.usage())},
               {"timings_ms", TimingsJson(generation.finished.timings())},
               {"provenance", ProvenanceJson(started.provenance())}};
  if (!first.top_logprobs.empty()) json["top_logprobs"] = TopLogprobsJson(first.top_logprobs);
  if (!generation.finished.fusion_members().empty()) json["fusion"] = FusionJson(generation);
  if (generation.continuations.size() > 1) {
    Json continuations = Json::array();
    for (const Continued& continued : generation.continuations) {
      continuations.push_back(ContinuedJson(continued));
    }
    json["continuations"] = std::move(continuations);
  }
  if (!input.answers.is_null()) json["answers"] = input.answers;
  return json;
}

Json ScoresJson(const PromptInput& input, const v1::ScoreResponse& response) {
  Json scores = Json::array();
  for (const v1::ContinuationScore& score : response.scores()) {
    scores.push_back({{"logprob", score.logprob()},
                      {"token_logprobs", Array(score.tokens().logprobs())},
                      {"token_ids", Array(score.tokens().token_ids())},
                      {"ranks", Array(score.tokens().ranks())},
                      {"is_greedy", score.is_greedy()}});
  }
  Json json = {{"id", input.id},
               {"scores", std::move(scores)},
               {"usage", UsageJson(response.usage())},
               {"timings_ms", TimingsJson(response.timings())},
               {"provenance", ProvenanceJson(response.provenance())}};
  if (!input.answers.is_null()) json["answers"] = input.answers;
  return json;
}

Json InspectionJson(const PromptInput& input, const v1::InspectResponse& response) {
  Json tokens = Json::array();
  for (const v1::PromptToken& token : response.tokens()) {
    tokens.push_back({{"id", token.id()},
                      {"bytes", absl::Base64Escape(token.bytes())},
                      {"segment", token.segment()},
                      {"group", token.group()},
                      {"position", token.position()}});
  }
  Json visible = Json::array();
  for (const v1::VisibleGroups& row : response.visible()) visible.push_back(Array(row.groups()));
  Json json = {{"id", input.id},
               {"tokens", std::move(tokens)},
               {"visible", std::move(visible)},
               {"visible_pairs", response.visible_pairs()},
               {"causal_pairs", response.causal_pairs()}};
  if (!input.answers.is_null()) json["answers"] = input.answers;
  return json;
}

Json ModelJson(const v1::Model& model) {
  return {{"name", model.name()},
          {"architecture", model.architecture()},
          {"digest", model.digest()},
          {"weights_digest", model.weights_digest()},
          {"dtype", model.dtype()},
          {"weight_format", model.weight_format()},
          {"device", model.device()},
          {"context_length", model.context_length()},
          {"vocabulary_size", model.vocabulary_size()},
          {"layers", model.layers()},
          {"parameters", model.parameters()},
          {"eos_token_ids", Array(model.eos_token_ids())},
          {"kv_capacity_tokens", model.kv_capacity_tokens()}};
}

Json ErrorJson(const Json& id, const ErrorText& error) {
  return {{"id", id},
          {"error", {{"code", error.code}, {"message", error.message}, {"field", error.field}}}};
}

ErrorText DescribeError(const grpc::Status& status) {
  return {.code = CodeName(status.error_code()),
          .message = status.error_message(),
          .field = GetErrorDetail(status).field};
}

ErrorText DescribeError(const PromptError& error) {
  return {.code = CodeName(grpc::StatusCode::INVALID_ARGUMENT),
          .message = error.field().empty() ? error.what() : error.field() + ": " + error.what(),
          .field = error.field()};
}

std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace structattn::client
