// Implements generate_task.h.
#include "server/engine/generate_task.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

Request WithBranches(Request request) {
  STRUCTATTN_CHECK(request.samples >= 1 && request.best_of >= request.samples);
  if (request.branches.empty()) {
    request.branches.push_back({.group = request.generated_group,
                                .cue = {},
                                .predicted_from = request.prompt.structure.size() - 1});
  }
  return request;
}

// The prompt tokens from which first tokens are predicted.
std::vector<int32_t> FirstRows(const Request& request) {
  std::vector<int32_t> rows;
  for (const Branch& branch : request.branches) {
    if (branch.cue.empty()) rows.push_back(branch.predicted_from);
  }
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

}  // namespace

GenerateTask::GenerateTask(uint64_t ticket, Request request, std::shared_ptr<EventSink> sink,
                           const SequenceModel& model)
    : Task(ticket, {.arrival = request.arrival, .deadline = request.deadline}),
      request_(WithBranches(std::move(request))),
      sink_(std::move(sink)),
      prompt_tokens_(request_.prompt.structure.size()),
      cached_per_segment_(request_.prompt.segment_count) {
  for (int32_t branch = 0; branch < static_cast<int32_t>(request_.branches.size()); ++branch) {
    for (int32_t sample = 0; sample < request_.best_of; ++sample) {
      generations_.emplace_back(request_, branch, sample, model);
    }
  }
  held_.resize(generations_.size());
  if (generations_.size() > 1) request_.prompt.structure.EndRun();
  prompt_ = std::make_unique<Sequence>(
      this,
      Sequence::Tokens{std::move(request_.prompt.token_ids), std::move(request_.prompt.structure)},
      request_.cache, model);
  prompt_->blocks().Want(FirstRows(request_));
}

absl::Status GenerateTask::CheckFits(int32_t kv_blocks) const {
  for (const Generation& generation : generations_) {
    const Branch& branch = BranchOf(generation);
    const int32_t cue = static_cast<int32_t>(branch.cue.size());
    const int32_t blocks = prompt_->BlocksWith(cue + generation.max_tokens(), branch.group);
    if (blocks <= kv_blocks) continue;
    return FieldError(
        absl::StatusCode::kResourceExhausted, {"stopping.max_tokens", "KV_MEMORY_EXCEEDED"},
        absl::StrCat("prompt of ", prompt_tokens_ + cue, " tokens in ",
                     prompt_->structure().runs().size(), " runs of equal group and up to ",
                     generation.max_tokens(), " generated take ", blocks, " KV blocks of ",
                     prompt_->intervals().placement().alignment(), " tokens: there are ",
                     kv_blocks));
  }
  return absl::OkStatus();
}

Sequences GenerateTask::Begin() {
  for (size_t i = 0; i < generations_.size(); ++i) {  // Those for which the context has no room.
    if (!generations_[i].finish().has_value()) continue;
    Tell(static_cast<int32_t>(i), generations_[i].End(*generations_[i].finish()));
  }
  FinishIfDone();
  Sequences sequences;
  if (!ended()) sequences.push_back(std::move(prompt_));
  return sequences;
}

absl::Status GenerateTask::Read(const LogitsRow& row, Sampler* sampler) {
  NoteRead();
  const int32_t continuation = row.sequence->part().continuation;
  if (continuation != Part::kPrompt) {
    STRUCTATTN_RETURN_IF_ERROR(SampleNext(continuation, row.logits, sampler));
  } else {
    CountCached(*row.sequence);
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
  Tell(number, generation.Accept(std::move(token)));
  return absl::OkStatus();
}

void GenerateTask::GoOn(Sequence* sequence, BlockPool* pool, Sequences* forks) {
  if (sequence->part().continuation != Part::kPrompt) {
    if (!GenerationOf(*sequence).finish().has_value()) {
      Extend(sequence, sequence->part().continuation);
    }
    return;
  }
  CountCached(*sequence);
  int32_t first = Part::kPrompt;  // The one that takes the prompt's sequence itself.
  for (size_t i = 0; i < generations_.size(); ++i) {
    if (generations_[i].finish().has_value()) continue;
    if (first == Part::kPrompt) {
      first = static_cast<int32_t>(i);
      continue;
    }
    forks->push_back(sequence->Fork(pool));
    Extend(forks->back().get(), static_cast<int32_t>(i));
  }
  if (first != Part::kPrompt) Extend(sequence, first);
}

// Appends the tokens of a generation that are not computed yet.
void GenerateTask::Extend(Sequence* sequence, int32_t number) const {
  const Generation& generation = generations_[number];
  const Branch& branch = BranchOf(generation);
  sequence->set_part({.prompt = 0, .continuation = number});
  if (generation.tokens() > 0) {
    sequence->AppendGenerated(generation.last_token(), branch.group);
  } else {
    sequence->AppendGiven(branch.cue, branch.group);
    sequence->blocks().Want({sequence->size() - 1});
  }
}

void GenerateTask::Tell(int32_t number, TokenEvent event) {
  const int32_t branch = generations_[number].branch();
  event.group = request_.branches[branch].group;
  event.index = number;
  const bool is_last = event.finish.has_value();
  if (request_.best_of > request_.samples) {
    held_[number].push_back(std::move(event));
    if (is_last) TellBest(branch);
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
void GenerateTask::TellBest(int32_t branch) {
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

void GenerateTask::CountCached(const Sequence& prompt) {
  cached_tokens_ = 0;
  std::ranges::fill(cached_per_segment_, 0);
  for (const TokenRange& range : prompt.blocks().reused()) {
    for (int32_t i = range.begin; i < std::min(range.end, prompt_tokens_); ++i) {
      ++cached_tokens_;
      const int32_t segment = request_.prompt.segments[i];
      if (segment >= 0) ++cached_per_segment_[segment];
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
  FinishEvent event = {.reason = FinishReason::kLength,
                       .continuations = ends_,
                       .prompt_tokens = prompt_tokens_,
                       .cached_tokens = cached_tokens_,
                       .cached_per_segment = cached_per_segment_,
                       .queue = durations.queue,
                       .prefill = durations.prefill,
                       .decode = durations.decode};
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
    Tell(static_cast<int32_t>(i), generations_[i].End(reason));
  }
  FinishIfDone();
}

void GenerateTask::Fail(const absl::Status& status) {
  set_ended();
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn
