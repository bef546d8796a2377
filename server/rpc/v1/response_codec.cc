// Implements response_codec.h.
#include "server/rpc/v1/response_codec.h"

#include <bit>
#include <span>
#include <string>

#include "server/model/device_name.h"

namespace structattn::rpc {
namespace {

v1::FinishReason EncodeFinishReason(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case engine::FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case engine::FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case engine::FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case engine::FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case engine::FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

// A preset has rows for all groups: only those in use are shown. A table is shown as it was given.
void EncodeRule(const Structure& structure, v1::InspectResponse* response) {
  const int used = std::bit_width(structure.used_groups());
  const bool is_full = structure.rule().rows == kMaxGroups;
  const int rows = is_full ? used : structure.rule().rows;
  const int columns = is_full ? used : kMaxGroups;
  for (int group = 0; group < rows; ++group) {
    v1::VisibleGroups* row = response->add_visible();
    for (int seen = 0; seen < columns; ++seen) {
      if (structure.rule().Sees(group, seen)) row->add_groups(seen);
    }
  }
}

v1::TopLogprobs EncodeTopLogprobs(std::span<const engine::TokenLogprob> alternatives) {
  v1::TopLogprobs top;
  for (const engine::TokenLogprob& alternative : alternatives) {
    v1::TokenLogprob* entry = top.add_entries();
    entry->set_token_id(alternative.token_id);
    entry->set_logprob(alternative.logprob);
  }
  return top;
}

v1::Provenance EncodeProvenance(const serving::Provenance& provenance) {
  v1::Provenance encoded;
  encoded.set_model(provenance.model);
  encoded.set_model_digest(provenance.model_digest);
  encoded.set_weights_digest(provenance.weights_digest);
  encoded.set_structure_digest(provenance.structure_digest);
  encoded.set_dtype(provenance.dtype);
  encoded.set_weight_format(provenance.weight_format);
  encoded.set_device(provenance.device);
  encoded.set_kernel(provenance.kernel);
  encoded.set_seed(provenance.seed);
  encoded.set_version(provenance.version);
  return encoded;
}

// Fills in what was computed and how long it took, for events and answers alike.
template <typename Answer>
void FillCosts(const Answer& answer, v1::Usage* usage, v1::Timings* timings) {
  usage->set_prompt_tokens(answer.prompt_tokens);
  usage->set_cached_tokens(answer.cached_tokens);
  timings->set_queue_ms(absl::ToDoubleMilliseconds(answer.queue));
  timings->set_prefill_ms(absl::ToDoubleMilliseconds(answer.prefill));
  timings->set_decode_ms(absl::ToDoubleMilliseconds(answer.decode));
}

v1::TokenScores EncodeTokenScores(const serving::ScoredTokens& tokens) {
  v1::TokenScores encoded;
  encoded.mutable_token_ids()->Add(tokens.token_ids.begin(), tokens.token_ids.end());
  encoded.mutable_logprobs()->Add(tokens.scores.logprobs.begin(), tokens.scores.logprobs.end());
  encoded.mutable_ranks()->Add(tokens.scores.ranks.begin(), tokens.scores.ranks.end());
  return encoded;
}

void EncodeReadOut(const serving::ReadOutAnswer& read, v1::ReadOut* encoded) {
  encoded->set_token_index(read.token_index);
  encoded->set_group(read.group);
  encoded->mutable_candidate_logprobs()->Add(read.candidate_logprobs.begin(),
                                             read.candidate_logprobs.end());
  if (!read.top_logprobs.empty()) {
    *encoded->mutable_top_logprobs() = EncodeTopLogprobs(read.top_logprobs);
  }
}

}  // namespace

v1::Started EncodeStarted(const serving::Started& started) {
  v1::Started encoded;
  encoded.mutable_prompt_token_ids()->Add(started.prompt_token_ids.begin(),
                                          started.prompt_token_ids.end());
  encoded.mutable_group_ids()->Add(started.group_ids.begin(), started.group_ids.end());
  encoded.mutable_position_ids()->Add(started.position_ids.begin(), started.position_ids.end());
  *encoded.mutable_provenance() = EncodeProvenance(started.provenance);
  return encoded;
}

void AppendToken(const engine::TokenEvent& event, v1::Chunk* chunk) {
  chunk->mutable_text()->append(event.text);
  chunk->mutable_token_ids()->Add(event.token_ids.begin(), event.token_ids.end());
  chunk->mutable_logprobs()->Add(event.logprobs.begin(), event.logprobs.end());
  for (const std::vector<engine::TokenLogprob>& alternatives : event.top_logprobs) {
    *chunk->add_top_logprobs() = EncodeTopLogprobs(alternatives);
  }
  for (const std::vector<float>& logprobs : event.member_logprobs) {
    chunk->add_member_logprobs()->mutable_logprobs()->Add(logprobs.begin(), logprobs.end());
  }
  chunk->set_index(event.index);
  chunk->set_group(event.group);
  if (event.finish.has_value()) chunk->set_finish_reason(EncodeFinishReason(*event.finish));
}

v1::Finished EncodeFinished(const engine::FinishEvent& event) {
  v1::Finished finished;
  finished.set_reason(EncodeFinishReason(event.reason));
  for (const engine::ContinuationEnd& end : event.continuations) {
    v1::ContinuationEnd* encoded = finished.add_continuations();
    encoded->set_index(end.index);
    encoded->set_group(end.group);
    encoded->set_reason(EncodeFinishReason(end.reason));
    encoded->set_generated_tokens(end.generated_tokens);
  }
  for (const engine::FusionMember& member : event.members) {
    v1::FusionMember* encoded = finished.add_fusion_members();
    encoded->set_group(member.group);
    encoded->set_weight(member.weight);
    encoded->set_greedy_text(member.greedy_text);
    encoded->set_agreeing_samples(member.agreeing_samples);
  }
  FillCosts(event, finished.mutable_usage(), finished.mutable_timings());
  finished.mutable_usage()->set_generated_tokens(event.generated_tokens);
  finished.mutable_usage()->mutable_cached_tokens_per_segment()->Add(
      event.cached_per_segment.begin(), event.cached_per_segment.end());
  return finished;
}

v1::ScoreResponse EncodeScores(const serving::ScoreAnswer& answer) {
  v1::ScoreResponse response;
  for (const serving::ScoredTokens& continuation : answer.continuations) {
    v1::ContinuationScore* score = response.add_scores();
    score->set_logprob(continuation.logprob());
    *score->mutable_tokens() = EncodeTokenScores(continuation);
    score->set_is_greedy(continuation.is_greedy());
  }
  if (answer.prompt.has_value()) {
    response.set_prompt_logprobs_start(answer.prompt_logprobs_start);
    *response.mutable_prompt_scores() = EncodeTokenScores(*answer.prompt);
  }
  for (const serving::ReadOutAnswer& read : answer.read_outs) {
    EncodeReadOut(read, response.add_read_outs());
  }
  FillCosts(answer, response.mutable_usage(), response.mutable_timings());
  *response.mutable_provenance() = EncodeProvenance(answer.provenance);
  return response;
}

v1::ScoreRollingResponse EncodeRollingScores(const serving::ScoreAnswer& answer) {
  v1::ScoreRollingResponse response;
  const serving::ScoredTokens& text = answer.continuations.front();
  response.set_logprob(text.logprob());
  *response.mutable_tokens() = EncodeTokenScores(text);
  response.set_is_greedy(text.is_greedy());
  response.set_windows(answer.windows);
  FillCosts(answer, response.mutable_usage(), response.mutable_timings());
  *response.mutable_provenance() = EncodeProvenance(answer.provenance);
  return response;
}

v1::InspectResponse EncodeInspect(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer) {
  const Structure& structure = prompt.structure;
  v1::InspectResponse response;
  response.mutable_tokens()->Reserve(structure.size());
  for (int i = 0; i < structure.size(); ++i) {
    v1::PromptToken* token = response.add_tokens();
    token->set_id(prompt.token_ids[i]);
    token->set_bytes(tokenizer.TokenBytes(prompt.token_ids[i]));
    token->set_segment(prompt.segments[i]);
    token->set_group(structure.groups()[i]);
    token->set_position(structure.positions()[i]);
  }
  EncodeRule(structure, &response);
  const int64_t size = structure.size();
  response.set_visible_pairs(CountVisiblePairs(structure));
  response.set_causal_pairs(size * (size + 1) / 2);
  return response;
}

v1::Model EncodeModel(const engine::ServedModel& served) {
  const Model& model = *served.model;
  v1::Model encoded;
  encoded.set_name(served.name);
  encoded.set_architecture(model.config.architecture);
  encoded.set_digest(model.digest);
  encoded.set_weights_digest(model.weights_digest);
  encoded.set_dtype(std::string(Name(model.dtype)));
  encoded.set_weight_format(model.weight_format);
  encoded.set_device(Name(model.device));
  encoded.set_context_length(static_cast<int32_t>(model.config.context_length));
  encoded.set_vocabulary_size(static_cast<int32_t>(model.config.vocab_size));
  encoded.set_layers(static_cast<int32_t>(model.config.layers));
  encoded.set_parameters(model.parameters);
  encoded.mutable_eos_token_ids()->Add(model.config.eos_token_ids.begin(),
                                       model.config.eos_token_ids.end());
  encoded.set_kv_capacity_tokens(served.engine->kv_capacity_tokens());
  return encoded;
}

}  // namespace structattn::rpc
