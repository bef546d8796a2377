// Implements fusion_task.h. A member is paused from the moment its logits are held until the token
// is picked; preempted in between, it computes its keys again, but not its logits.
#include "server/engine/task/fusion_task.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/check.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

GenerateRequest Checked(GenerateRequest request) {
  STRUCTATTN_CHECK(request.fusion.has_value() && !request.branches.empty());
  STRUCTATTN_CHECK(request.samples == 1 && request.best_of == 1);
  return request;
}

// The answer counts as much against the context as its longest member; penalties look at the tokens
// of all.
GenerationStart StartOfAnswer(const GenerateRequest& request) {
  GenerationStart answer{.sampling = &request.sampling,
                         .history = TokenHistory(request.sampling, request.prompt.token_ids)};
  for (int32_t i = 0; i < static_cast<int32_t>(request.branches.size()); ++i) {
    const GenerationStart member = StartOf(request, request.sampling, i, /*sample=*/0);
    answer.given_tokens = std::max(answer.given_tokens, member.given_tokens);
    answer.history.AddGiven(request.branches[i].cue);
  }
  return answer;
}

std::optional<Confidence> ConfidenceFor(const GenerateRequest& request,
                                        const SequenceModel& model) {
  if (!request.fusion->weights.empty()) return std::nullopt;
  return std::make_optional<Confidence>(request, model);
}

}  // namespace

FusionTask::FusionTask(uint64_t ticket, GenerateRequest request, std::shared_ptr<EventSink> sink,
                       const SequenceModel& model)
    : Task(ticket, {.arrival = request.arrival, .deadline = request.deadline}),
      request_(Checked(std::move(request))),
      sink_(std::move(sink)),
      answer_(request_, StartOfAnswer(request_), model),
      confidence_(ConfidenceFor(request_, model)),
      prompt_(this, &request_, members() + (confidence_ ? confidence_->size() : 0), model),
      fused_(request_.fusion->method, members()),
      worth_(members()),
      weights_(request_.fusion->weights) {
  STRUCTATTN_CHECK(confidence_.has_value() || weights_.size() == request_.branches.size());
  for (int32_t i = 0; i < members(); ++i) {
    worth_[i].group = request_.branches[i].group;
    if (!weights_.empty()) worth_[i].weight = weights_[i];
  }
}

absl::Status FusionTask::CheckFits(int32_t kv_blocks) const {
  for (const Branch& branch : request_.branches) {
    int32_t most = answer_.max_tokens();
    if (confidence_.has_value()) most = std::max(most, request_.stopping.max_tokens);
    STRUCTATTN_RETURN_IF_ERROR(prompt_.CheckFits(branch, most, kv_blocks));
  }
  return absl::OkStatus();
}

Sequences FusionTask::Begin() {
  Sequences sequences;
  if (answer_.finish().has_value()) {  // The context has no room.
    Emit(answer_.End(*answer_.finish()));
  } else {
    sequences.push_back(prompt_.Take());
  }
  return sequences;
}

absl::Status FusionTask::Read(const LogitsRow& row, Sampler* sampler) {
  NoteRead();
  const int32_t continuation = row.sequence->part().continuation;
  if (continuation == Part::kPrompt) {
    STRUCTATTN_RETURN_IF_ERROR(ReadPrompt(row, sampler));
  } else if (continuation < members()) {
    STRUCTATTN_RETURN_IF_ERROR(fused_.Take(continuation, row.logits));
  } else {
    STRUCTATTN_RETURN_IF_ERROR(
        confidence_->SampleNext(continuation - members(), row.logits, sampler));
  }
  return PickWhenComplete(sampler);
}

absl::Status FusionTask::ReadPrompt(const LogitsRow& row, Sampler* sampler) {
  prompt_.CountCached(*row.sequence);
  for (int32_t i = 0; i < members(); ++i) {
    const Branch& branch = request_.branches[i];
    if (!branch.cue.empty() || branch.predicted_from != row.token) continue;
    STRUCTATTN_RETURN_IF_ERROR(fused_.Take(i, row.logits));
    if (!confidence_.has_value()) continue;
    const int32_t samples = confidence_->per_branch();
    for (int32_t sample = i * samples; sample < (i + 1) * samples; ++sample) {
      STRUCTATTN_RETURN_IF_ERROR(confidence_->SampleNext(sample, row.logits, sampler));
    }
  }
  return absl::OkStatus();
}

absl::Status FusionTask::PickWhenComplete(Sampler* sampler) {
  if (weights_.empty() && confidence_->complete()) {
    const std::vector<FusionMember> members = confidence_->Members();
    for (size_t i = 0; i < members.size(); ++i) {
      const int32_t group = std::exchange(worth_[i], members[i]).group;
      worth_[i].group = group;
      weights_.push_back(members[i].weight);
    }
  }
  if (weights_.empty() || !fused_.complete()) return absl::OkStatus();
  STRUCTATTN_ASSIGN_OR_RETURN(SampledToken token,
                              sampler->Sample(answer_.NextSample(fused_.Fuse(weights_))));
  std::vector<float> member_logprobs = fused_.MemberLogprobs(token.token_id);
  fused_.Clear();
  TokenEvent event = answer_.Accept(std::move(token));
  event.member_logprobs.push_back(std::move(member_logprobs));
  Emit(std::move(event));
  return absl::OkStatus();
}

void FusionTask::Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) {
  if (sequence->part().continuation != Part::kPrompt) return Continue(sequence);
  prompt_.CountCached(*sequence);
  std::vector<int32_t> unfinished;
  for (int32_t i = 0; i < members(); ++i) unfinished.push_back(i);
  for (int32_t i = 0; confidence_.has_value() && i < confidence_->size(); ++i) {
    if (!confidence_->sample(i).finish().has_value()) unfinished.push_back(members() + i);
  }
  const std::vector<Sequence*> sequences = ShareOut(unfinished.size(), sequence, pool, forks);
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->set_part({.continuation = unfinished[i]});
    Continue(sequences[i]);
  }
}

void FusionTask::Continue(Sequence* sequence) const {
  const int32_t continuation = sequence->part().continuation;
  if (continuation < members()) {
    if (!IsPaused(*sequence)) Extend(request_.branches[continuation], answer_, sequence);
    return;
  }
  const Generation& sample = confidence_->sample(continuation - members());
  if (!sample.finish().has_value()) Extend(request_.branches[sample.branch()], sample, sequence);
}

bool FusionTask::IsPaused(const Sequence& sequence) const {
  const int32_t continuation = sequence.part().continuation;
  return continuation >= 0 && continuation < members() && fused_.Has(continuation);
}

void FusionTask::Emit(TokenEvent event) {
  const std::optional<FinishReason> finish = event.finish;
  event.group = request_.branches[0].group;
  sink_->OnToken(std::move(event));
  if (finish.has_value()) Finish();
}

void FusionTask::Finish() {
  set_ended();
  const Durations durations = DurationsUntil(absl::Now());
  FinishEvent event = prompt_.Usage();
  event.reason = *answer_.finish();
  event.continuations = {{.group = request_.branches[0].group,
                          .reason = event.reason,
                          .generated_tokens = answer_.tokens()}};
  event.members = worth_;
  event.generated_tokens = answer_.tokens();
  if (confidence_.has_value()) event.generated_tokens += confidence_->generated_tokens();
  event.queue = durations.queue;
  event.prefill = durations.prefill;
  event.decode = durations.decode;
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnFinish(event);
}

void FusionTask::Stop(FinishReason reason) { Emit(answer_.End(reason)); }

void FusionTask::Fail(const absl::Status& status) {
  set_ended();
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn::engine
