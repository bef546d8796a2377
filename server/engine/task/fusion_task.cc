// Implements fusion_task.h. A member is paused from the moment its logits are held until the token
// is picked; preempted in between, it computes its keys again, but not its logits.
#include "server/engine/task/fusion_task.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

GenerateRequest Checked(GenerateRequest request) {
  STRUCTATTN_CHECK(request.fusion.has_value());
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

FusionTask::FusionTask(uint64_t ticket, GenerateRequest asked, std::shared_ptr<EventSink> sink,
                       const SequenceModel& model)
    : GeneratingTask(ticket, Checked(std::move(asked)), std::move(sink)),
      answer_(request(), StartOfAnswer(request()), model),
      confidence_(ConfidenceFor(request(), model)),
      fused_(request().fusion->method, members()),
      worth_(members()),
      weights_(request().fusion->weights) {
  STRUCTATTN_CHECK(confidence_.has_value() || weights_.size() == request().branches.size());
  std::vector<int32_t> branches;
  for (int32_t i = 0; i < members(); ++i) {
    branches.push_back(i);
    worth_[i].group = request().branches[i].group;
    if (!weights_.empty()) worth_[i].weight = weights_[i];
  }
  for (int32_t i = 0; confidence_.has_value() && i < confidence_->size(); ++i) {
    branches.push_back(confidence_->sample(i).branch());
  }
  MakePrompt(std::move(branches), model);
}

const Generation& FusionTask::GenerationOf(int32_t continuation) const {
  return continuation < members() ? answer_ : confidence_->sample(continuation - members());
}

Sequences FusionTask::Begin() {
  Sequences sequences;
  if (answer_.finish().has_value()) {  // The context has no room.
    Emit(answer_.End(*answer_.finish()));
  } else {
    sequences.push_back(TakePrompt());
  }
  return sequences;
}

absl::Status FusionTask::Take(int32_t continuation, std::span<const float> logits,
                              Sampler* sampler) {
  return continuation < members()
             ? fused_.Take(continuation, logits)
             : confidence_->SampleNext(continuation - members(), logits, sampler);
}

// Picks the next token when the weights are known and every member's logits are there.
absl::Status FusionTask::FinishRow(Sampler* sampler) {
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

bool FusionTask::IsPaused(const Sequence& sequence) const {
  const std::optional<int32_t> continuation = sequence.role().continuation;
  return continuation.has_value() && *continuation < members() && fused_.Has(*continuation);
}

void FusionTask::Emit(TokenEvent event) {
  const std::optional<FinishReason> finish = event.finish;
  event.group = request().branches[0].group;
  Send(std::move(event));
  if (finish.has_value()) Finish(MakeFinish());
}

FinishEvent FusionTask::MakeFinish() const {
  FinishEvent event;
  event.reason = *answer_.finish();
  event.continuations = {{.group = request().branches[0].group,
                          .reason = event.reason,
                          .generated_tokens = answer_.tokens()}};
  event.members = worth_;
  event.generated_tokens = answer_.tokens();
  if (confidence_.has_value()) event.generated_tokens += confidence_->generated_tokens();
  return event;
}

void FusionTask::Stop(FinishReason reason) { Emit(answer_.End(reason)); }

}  // namespace structattn::engine
