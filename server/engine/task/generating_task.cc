// Implements generating_task.h.
#include "server/engine/task/generating_task.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "server/engine/field_error.h"
#include "server/model/status_macros.h"

namespace structattn::engine {
namespace {

// The first token of such a branch is predicted from a prompt token, not from the end of its cue.
bool IsPredictedFrom(int32_t token, const Branch& branch) {
  return branch.cue.empty() && branch.predicted_from == token;
}

// The prompt tokens from which first tokens are predicted.
std::vector<int32_t> FirstRows(const GenerateRequest& request) {
  std::vector<int32_t> rows;
  for (const Branch& branch : request.branches) {
    if (branch.cue.empty()) rows.push_back(branch.predicted_from);
  }
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

}  // namespace

GeneratingTask::GeneratingTask(uint64_t ticket, GenerateRequest request,
                               std::shared_ptr<EventSink> sink)
    : Task(ticket, {.arrival = request.arrival, .deadline = request.deadline}),
      request_(std::move(request)),
      sink_(std::move(sink)),
      cached_per_segment_(request_.prompt.segment_count) {
  STRUCTATTN_CHECK(!request_.branches.empty());
}

void GeneratingTask::MakePrompt(std::vector<int32_t> branch_of_continuation,
                                const SequenceModel& model) {
  branch_of_continuation_ = std::move(branch_of_continuation);
  Sequence::Tokens tokens{request_.prompt.token_ids, request_.prompt.structure};
  if (branch_of_continuation_.size() > 1) tokens.structure.EndRun();
  prompt_ = std::make_unique<Sequence>(this, std::move(tokens), request_.cache, model);
  prompt_->blocks().SetLogitTokens(FirstRows(request_));
}

absl::Status GeneratingTask::CheckFits(int32_t kv_blocks) const {
  for (size_t i = 0; i < branch_of_continuation_.size(); ++i) {
    const int32_t continuation = static_cast<int32_t>(i);
    const Branch& branch = BranchOf(continuation);
    const int32_t cue = static_cast<int32_t>(branch.cue.size());
    const int32_t max_tokens = GenerationOf(continuation).max_tokens();
    const int32_t blocks = prompt_->BlocksWith(cue + max_tokens, branch.group);
    if (blocks <= kv_blocks) continue;
    return FieldError(
        absl::StatusCode::kResourceExhausted, {"stopping.max_tokens", "KV_MEMORY_EXCEEDED"},
        absl::StrCat("prompt of ", prompt_->size() + cue, " tokens in ",
                     prompt_->structure().runs().size(), " runs of equal group and up to ",
                     max_tokens, " generated take ", blocks, " KV blocks of ",
                     prompt_->intervals().placement().alignment(), " tokens: there are ",
                     kv_blocks));
  }
  return absl::OkStatus();
}

absl::Status GeneratingTask::Read(const LogitsRow& row, Sampler* sampler) {
  NoteRead();
  if (const std::optional<int32_t> continuation = row.sequence->role().continuation) {
    STRUCTATTN_RETURN_IF_ERROR(Take(*continuation, row.logits, sampler));
  } else {
    CountCached(*row.sequence);
    for (size_t i = 0; i < branch_of_continuation_.size(); ++i) {
      if (!IsPredictedFrom(row.token, BranchOf(static_cast<int32_t>(i)))) continue;
      STRUCTATTN_RETURN_IF_ERROR(Take(static_cast<int32_t>(i), row.logits, sampler));
    }
  }
  return FinishRow(sampler);
}

// The first of the unfinished continuations takes over the prompt's sequence, the others fork it.
void GeneratingTask::Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) {
  if (const std::optional<int32_t> continuation = sequence->role().continuation) {
    return Continue(*continuation, sequence);
  }
  CountCached(*sequence);
  std::vector<int32_t> unfinished;
  for (size_t i = 0; i < branch_of_continuation_.size(); ++i) {
    const int32_t continuation = static_cast<int32_t>(i);
    if (!GenerationOf(continuation).finish().has_value()) unfinished.push_back(continuation);
  }
  std::vector<Sequence*> sequences = {sequence};
  while (sequences.size() < unfinished.size()) {
    forks->push_back(sequence->Fork(pool));
    sequences.push_back(forks->back().get());
  }
  for (size_t i = 0; i < unfinished.size(); ++i) {
    sequences[i]->set_role({.continuation = unfinished[i]});
    Continue(unfinished[i], sequences[i]);
  }
}

// Appends what comes next: the token picked last, or first the cue.
void GeneratingTask::Continue(int32_t continuation, Sequence* sequence) const {
  const Generation& generation = GenerationOf(continuation);
  if (generation.finish().has_value() || IsPaused(*sequence)) return;
  const Branch& branch = BranchOf(continuation);
  if (generation.tokens() > 0) {
    sequence->AppendGenerated(generation.last_token(), branch.group);
  } else {
    sequence->AppendGiven(branch.cue, branch.group);
    sequence->blocks().SetLogitTokens({sequence->size() - 1});
  }
}

void GeneratingTask::CountCached(const Sequence& prompt) {
  const std::vector<int32_t>& segments = request_.prompt.segments;
  cached_tokens_ = 0;
  std::ranges::fill(cached_per_segment_, 0);
  for (const TokenRange& range : prompt.blocks().reused()) {
    for (int32_t i = range.begin; i < std::min(range.end, static_cast<int32_t>(segments.size()));
         ++i) {
      ++cached_tokens_;
      if (segments[i] >= 0) ++cached_per_segment_[segments[i]];
    }
  }
}

void GeneratingTask::Finish(FinishEvent event) {
  set_ended();
  const Durations durations = DurationsUntil(absl::Now());
  event.prompt_tokens = request_.prompt.structure.size();
  event.cached_tokens = cached_tokens_;
  event.cached_per_segment = cached_per_segment_;
  event.queue = durations.queue;
  event.prefill = durations.prefill;
  event.decode = durations.decode;
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnFinish(event);
}

void GeneratingTask::Fail(const absl::Status& status) {
  set_ended();
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn::engine
