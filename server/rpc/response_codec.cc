// See response_codec.h.
#include "server/rpc/response_codec.h"

#include <bit>
#include <string>

namespace structattn {
namespace {

std::string DeviceName(DeviceKind device) {
  switch (device) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda:0";
    case DeviceKind::kEmulated:
      return "emulated";
  }
  return "";
}

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

}  // namespace

v1::Started EncodeStarted(const engine::ServedModel& served, const engine::GenerateRequest& request,
                          bool echo) {
  const Structure& structure = request.prompt.structure;
  v1::Started started;
  if (echo) {
    started.mutable_prompt_token_ids()->Add(request.prompt.token_ids.begin(),
                                            request.prompt.token_ids.end());
    started.mutable_group_ids()->Add(structure.groups().begin(), structure.groups().end());
    started.mutable_position_ids()->Add(structure.positions().begin(), structure.positions().end());
  }
  *started.mutable_provenance() = EncodeProvenance(served, structure, request.sampling.seed);
  return started;
}

v1::Provenance EncodeProvenance(const engine::ServedModel& served, const Structure& structure,
                                uint64_t seed) {
  v1::Provenance provenance;
  provenance.set_model(served.name);
  provenance.set_model_digest(served.model->digest);
  provenance.set_structure_digest(engine::StructureDigest(structure));
  provenance.set_dtype(std::string(Name(served.model->dtype)));
  provenance.set_weight_format(served.model->weight_format);
  provenance.set_device(DeviceName(served.model->device));
  provenance.set_kernel(served.model->kernel);
  provenance.set_seed(seed);
  provenance.set_version(STRUCTATTN_VERSION);
  return provenance;
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
  finished.mutable_usage()->set_prompt_tokens(event.prompt_tokens);
  finished.mutable_usage()->set_cached_tokens(event.cached_tokens);
  finished.mutable_usage()->set_generated_tokens(event.generated_tokens);
  finished.mutable_usage()->mutable_cached_tokens_per_segment()->Add(
      event.cached_per_segment.begin(), event.cached_per_segment.end());
  finished.mutable_timings()->set_queue_ms(absl::ToDoubleMilliseconds(event.queue));
  finished.mutable_timings()->set_prefill_ms(absl::ToDoubleMilliseconds(event.prefill));
  finished.mutable_timings()->set_decode_ms(absl::ToDoubleMilliseconds(event.decode));
  return finished;
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
  encoded.set_dtype(std::string(Name(model.dtype)));
  encoded.set_weight_format(model.weight_format);
  encoded.set_device(DeviceName(model.device));
  encoded.set_context_length(static_cast<int32_t>(model.config.context_length));
  encoded.set_vocabulary_size(static_cast<int32_t>(model.config.vocab_size));
  encoded.set_layers(static_cast<int32_t>(model.config.layers));
  encoded.set_parameters(model.parameters);
  encoded.mutable_eos_token_ids()->Add(model.config.eos_token_ids.begin(),
                                       model.config.eos_token_ids.end());
  encoded.set_kv_capacity_tokens(served.engine->kv_capacity_tokens());
  return encoded;
}

std::string_view FinishReasonName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kStopToken:
      return "stop_token";
    case engine::FinishReason::kStopString:
      return "stop_string";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "cancelled";
    case engine::FinishReason::kDeadline:
      return "deadline";
  }
  return "";
}

}  // namespace structattn
