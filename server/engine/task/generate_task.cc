// Implements generate_task.h.
#include "server/engine/task/generate_task.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/time/clock.h"
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

GenerateTask::GenerateTask(uint64_t ticket, GenerateRequest request,
                           std::shared_ptr<EventSink> sink, const SequenceModel& model)
    : Task(ticket, {.arrival = request.arrival, .deadline = request.deadline}),
      request_(WithBranches(std::move(request))),
      sink_(std::move(sink)),
      generations_(MakeGenerations(request_, model)),
      prompt_(this, &request_, generations_.size(), model),
      held_(generations_.size()) {}

std::vector<Generation> GenerateTask::MakeGenerations(const GenerateRequest& request,
                                                      const SequenceModel& model) {
  std::vector<Generation> generations;
  for (int32_t branch = 0; branch < static_cast<int32_t>(request.branches.size()); ++branch) {
    for (int32_t sample = 0; sample < request.best_of; ++sample) {
      generations.emplace_back(request, StartOf(request, request.sampling, branch, sample), model);
    }
  }
  return generations;
}

absl::Status GenerateTask::CheckFits(int32_t kv_blocks) const {
  for (const Generation& generation : generations_) {
    STRUCTATTN_RETURN_IF_ERROR(
        prompt_.CheckFits(BranchOf(generation), generation.max_tokens(), kv_blocks));
  }
  return absl::OkStatus();
}

Sequences GenerateTask::Begin() {
  for (size_t i = 0; i < generations_.size(); ++i) {  // Those for which the context has no room.
    if (!generations_[i].finish().has_value()) continue;
    Emit(static_cast<int32_t>(i), generations_[i].End(*generations_[i].finish()));
  }
  FinishIfDone();
  Sequences sequences;
  if (!ended()) sequences.push_back(prompt_.Take());
  return sequences;
}

absl::Status GenerateTask::Read(const LogitsRow& row, Sampler* sampler) {
  NoteRead();
  const int32_t continuation = row.sequence->part().continuation;
  if (continuation != Part::kPrompt) {
    STRUCTATTN_RETURN_IF_ERROR(SampleNext(continuation, row.logits, sampler));
  } else {
    prompt_.CountCached(*row.sequence);
    for (size_t i = 0; i < generations_.size(); ++i) {
      const Branch& branch = BranchOf(generations_[i]);
      if (!branch.cue.empty() || branch.predicted_from != row.token) continue;
      STRUCTATTN_RETURN_IF_ERROR(SampleNext(static_cast<int32_t>(i), row.logits, sampler));
    }
  }
  FinishIfDone();
  return absl::OkStatus();
}

absl::Status GenerateTask::SampleNext(int32_t number, std::span<const float> logits,
                                      Sampler* sampler) {
  Generation& generation = generations_[number];
  if (generation.finish().has_value()) return absl::OkStatus();  // No room in the context.
  STRUCTATTN_ASSIGN_OR_RETURN(SampledToken token, sampler->Sample(generation.NextSample(logits)));
  Emit(number, generation.Accept(std::move(token)));
  return absl::OkStatus();
}

void GenerateTask::Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) {
  const int32_t continuation = sequence->part().continuation;
  if (continuation != Part::kPrompt) {
    const Generation& generation = generations_[continuation];
    if (!generation.finish().has_value()) Extend(BranchOf(generation), generation, sequence);
    return;
  }
  prompt_.CountCached(*sequence);
  std::vector<int32_t> unfinished;
  for (size_t i = 0; i < generations_.size(); ++i) {
    if (!generations_[i].finish().has_value()) unfinished.push_back(static_cast<int32_t>(i));
  }
  const std::vector<Sequence*> sequences = ShareOut(unfinished.size(), sequence, pool, forks);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Generation& generation = generations_[unfinished[i]];
    sequences[i]->set_part({.continuation = unfinished[i]});
    Extend(BranchOf(generation), generation, sequences[i]);
  }
}

void GenerateTask::Emit(int32_t number, TokenEvent event) {
  const int32_t branch = generations_[number].branch();
  event.group = request_.branches[branch].group;
  event.index = number;
  const bool is_last = event.finish.has_value();
  if (request_.best_of > request_.samples) {
    held_[number].push_back(std::move(event));
    if (is_last) EmitBest(branch);
    return;
  }
  if (is_last) {
    ends_.push_back({.index = event.index,
                     .group = event.group,
                     .reason = *event.finish,
                     .generated_tokens = generations_[number].tokens()});
  }
  sink_->OnToken(std::move(event));
}

// Once all samples of the branch have ended: those with the largest mean log-probability, best
// first; of equals the earlier sample.
void GenerateTask::EmitBest(int32_t branch) {
  std::vector<int32_t> order(request_.best_of);
  std::iota(order.begin(), order.end(), branch * request_.best_of);
  for (const int32_t number : order) {
    if (!generations_[number].finish().has_value() || held_[number].empty()) return;
  }
  std::ranges::stable_sort(order, std::ranges::greater(), [this](int32_t number) {
    return generations_[number].logprob() / std::max(generations_[number].tokens(), 1);
  });
  for (int32_t rank = 0; rank < request_.samples; ++rank) {
    const Generation& generation = generations_[order[rank]];
    const int32_t index = branch * request_.samples + rank;
    ends_.push_back({.index = index,
                     .group = request_.branches[branch].group,
                     .reason = *generation.finish(),
                     .generated_tokens = generation.tokens()});
    for (TokenEvent& event : held_[order[rank]]) {
      event.index = index;
      sink_->OnToken(std::move(event));
    }
  }
}

void GenerateTask::FinishIfDone() {
  const auto is_done = [](const Generation& generation) { return generation.finish().has_value(); };
  if (ended() || !std::ranges::all_of(generations_, is_done)) return;
  set_ended();
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnFinish(MakeFinish());
}

FinishEvent GenerateTask::MakeFinish() const {
  const Durations durations = DurationsUntil(absl::Now());
  FinishEvent event = prompt_.Usage();
  event.continuations = ends_;
  event.queue = durations.queue;
  event.prefill = durations.prefill;
  event.decode = durations.decode;
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

void GenerateTask::Fail(const absl::Status& status) {
  set_ended();
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn::engine
