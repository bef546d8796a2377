// Implements generate_task.h.
#include "server/engine/task/generate_task.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

GenerateRequest WithBranches(GenerateRequest request) {
  STRUCTATTN_CHECK(request.samples >= 1 && request.best_of >= request.samples);
  if (request.branches.empty()) {
    request.branches.push_back({.group = request.generated_group,
                                .cue = {},
                                .predicted_from = request.prompt.structure.size() - 1});
  }
  return request;
}

}  // namespace

GenerateTask::GenerateTask(uint64_t ticket, GenerateRequest asked, std::shared_ptr<EventSink> sink,
                           const SequenceModel& model)
    : GeneratingTask(ticket, WithBranches(std::move(asked)), std::move(sink)) {
  std::vector<int32_t> branches;
  for (int32_t branch = 0; branch < static_cast<int32_t>(request().branches.size()); ++branch) {
    for (int32_t sample = 0; sample < request().best_of; ++sample) {
      branches.push_back(branch);
      generations_.emplace_back(request(), StartOf(request(), request().sampling, branch, sample),
                                model);
    }
  }
  held_.resize(generations_.size());
  MakePrompt(std::move(branches), model);
}

Sequences GenerateTask::Begin() {
  for (size_t i = 0; i < generations_.size(); ++i) {  // Those for which the context has no room.
    if (!generations_[i].finish().has_value()) continue;
    Emit(static_cast<int32_t>(i), generations_[i].End(*generations_[i].finish()));
  }
  FinishIfDone();
  Sequences sequences;
  if (!ended()) sequences.push_back(TakePrompt());
  return sequences;
}

absl::Status GenerateTask::Take(int32_t continuation, std::span<const float> logits,
                                Sampler* sampler) {
  Generation& generation = generations_[continuation];
  if (generation.finish().has_value()) return absl::OkStatus();  // No room in the context.
  STRUCTATTN_ASSIGN_OR_RETURN(SampledToken token, sampler->Sample(generation.NextSample(logits)));
  Emit(continuation, generation.Accept(std::move(token)));
  return absl::OkStatus();
}

absl::Status GenerateTask::FinishRow(Sampler*) {
  FinishIfDone();
  return absl::OkStatus();
}

void GenerateTask::Emit(int32_t continuation, TokenEvent event) {
  const Generation& generation = generations_[continuation];
  event.group = BranchOf(continuation).group;
  event.index = continuation;
  const bool is_last = event.finish.has_value();
  if (request().best_of > request().samples) {
    held_[continuation].push_back(std::move(event));
    if (is_last) EmitBest(generation.branch());
    return;
  }
  if (is_last) {
    ends_.push_back({.index = event.index,
                     .group = event.group,
                     .reason = *event.finish,
                     .generated_tokens = generation.tokens()});
  }
  Send(std::move(event));
}

// Once all samples of the branch have ended: those with the largest mean log-probability, best
// first; of equals the earlier sample.
void GenerateTask::EmitBest(int32_t branch) {
  std::vector<int32_t> order(request().best_of);
  std::iota(order.begin(), order.end(), branch * request().best_of);
  for (const int32_t number : order) {
    if (!generations_[number].finish().has_value() || held_[number].empty()) return;
  }
  std::ranges::stable_sort(order, std::ranges::greater(), [this](int32_t number) {
    return generations_[number].logprob() / std::max(generations_[number].tokens(), 1);
  });
  for (int32_t place = 0; place < request().samples; ++place) {
    const Generation& generation = generations_[order[place]];
    const int32_t index = branch * request().samples + place;
    ends_.push_back({.index = index,
                     .group = request().branches[branch].group,
                     .reason = *generation.finish(),
                     .generated_tokens = generation.tokens()});
    for (TokenEvent& event : held_[order[place]]) {
      event.index = index;
      Send(std::move(event));
    }
  }
}

void GenerateTask::FinishIfDone() {
  const auto is_done = [](const Generation& generation) { return generation.finish().has_value(); };
  if (!ended() && std::ranges::all_of(generations_, is_done)) Finish(MakeFinish());
}

FinishEvent GenerateTask::MakeFinish() const {
  FinishEvent event;
  event.continuations = ends_;
  std::ranges::sort(event.continuations, {}, &ContinuationEnd::index);
  event.reason = event.continuations.front().reason;
  for (const ContinuationEnd& end : event.continuations) {
    const bool cut =
        end.reason == FinishReason::kCancelled || end.reason == FinishReason::kDeadline;
    if (cut) event.reason = end.reason;
  }
  for (const Generation& generation : generations_) event.generated_tokens += generation.tokens();
  return event;
}

void GenerateTask::Stop(FinishReason reason) {
  for (size_t i = 0; i < generations_.size(); ++i) {
    if (generations_[i].finish().has_value()) continue;
    Emit(static_cast<int32_t>(i), generations_[i].End(reason));
  }
  FinishIfDone();
}

}  // namespace structattn::engine
