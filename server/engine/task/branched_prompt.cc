// Implements branched_prompt.h.
#include "server/engine/task/branched_prompt.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_error.h"

namespace structattn::engine {
namespace {

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

BranchedPrompt::BranchedPrompt(Task* task, GenerateRequest* request, size_t continuations,
                               const SequenceModel& model)
    : tokens_(request->prompt.structure.size()),
      segments_(std::move(request->prompt.segments)),
      cached_per_segment_(request->prompt.segment_count) {
  if (continuations > 1) request->prompt.structure.EndRun();
  sequence_ = std::make_unique<Sequence>(
      task,
      Sequence::Tokens{std::move(request->prompt.token_ids), std::move(request->prompt.structure)},
      request->cache, model);
  sequence_->blocks().SetLogitTokens(FirstRows(*request));
}

absl::Status BranchedPrompt::CheckFits(const Branch& branch, int32_t max_tokens,
                                       int32_t kv_blocks) const {
  const int32_t cue = static_cast<int32_t>(branch.cue.size());
  const int32_t blocks = sequence_->BlocksWith(cue + max_tokens, branch.group);
  if (blocks <= kv_blocks) return absl::OkStatus();
  return FieldError(
      absl::StatusCode::kResourceExhausted, {"stopping.max_tokens", "KV_MEMORY_EXCEEDED"},
      absl::StrCat("prompt of ", tokens_ + cue, " tokens in ", sequence_->structure().runs().size(),
                   " runs of equal group and up to ", max_tokens, " generated take ", blocks,
                   " KV blocks of ", sequence_->intervals().placement().alignment(),
                   " tokens: there are ", kv_blocks));
}

void BranchedPrompt::CountCached(const Sequence& prompt) {
  cached_tokens_ = 0;
  std::ranges::fill(cached_per_segment_, 0);
  for (const TokenRange& range : prompt.blocks().reused()) {
    for (int32_t i = range.begin; i < std::min(range.end, tokens_); ++i) {
      ++cached_tokens_;
      if (segments_[i] >= 0) ++cached_per_segment_[segments_[i]];
    }
  }
}

FinishEvent BranchedPrompt::Usage() const {
  FinishEvent event;
  event.prompt_tokens = tokens_;
  event.cached_tokens = cached_tokens_;
  event.cached_per_segment = cached_per_segment_;
  return event;
}

std::vector<Sequence*> ShareOut(size_t count, Sequence* prompt, BlockPool* pool, Sequences* forks) {
  std::vector<Sequence*> sequences;
  if (count > 0) sequences.push_back(prompt);
  while (sequences.size() < count) {
    forks->push_back(prompt->Fork(pool));
    sequences.push_back(forks->back().get());
  }
  return sequences;
}

void Extend(const Branch& branch, const Generation& generation, Sequence* sequence) {
  if (generation.tokens() > 0) {
    sequence->AppendGenerated(generation.last_token(), branch.group);
  } else {
    sequence->AppendGiven(branch.cue, branch.group);
    sequence->blocks().SetLogitTokens({sequence->size() - 1});
  }
}

}  // namespace structattn::engine
