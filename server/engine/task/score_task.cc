// Implements score_task.h. Token i is scored by the logits after token i - 1: the first token of
// every continuation by those after the prompt, which all of them read together.
#include "server/engine/task/score_task.h"

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

// Prompt tokens whose logits are read.
std::vector<int32_t> LogitTokensOf(const ScoredPrompt& scored) {
  const int32_t size = scored.prompt.structure.size();
  std::vector<int32_t> logit_tokens = scored.read_outs;
  if (scored.prompt_logprobs_begin.has_value()) {
    for (int32_t i = *scored.prompt_logprobs_begin; i < size; ++i) logit_tokens.push_back(i - 1);
  }
  if (!scored.continuations.empty()) logit_tokens.push_back(size - 1);
  std::ranges::sort(logit_tokens);
  logit_tokens.erase(std::unique(logit_tokens.begin(), logit_tokens.end()), logit_tokens.end());
  return logit_tokens;
}

// Whether anything is computed for it besides its prompt.
bool NeedsSequence(const std::vector<int32_t>& continuation) { return continuation.size() > 1; }

void Append(const ScoredRow& row, int32_t token_id, TokenScores* scores) {
  scores->logprobs.push_back(row.Logprob(token_id));
  scores->ranks.push_back(row.Rank(token_id));
}

}  // namespace

ScoreTask::ScoreTask(uint64_t ticket, ScoreRequest request, std::shared_ptr<ScoreSink> sink,
                     const SequenceModel& model)
    : Task(ticket, {.arrival = request.arrival, .deadline = request.deadline}),
      request_(std::move(request)),
      sink_(std::move(sink)) {
  event_.prompts.resize(request_.prompts.size());
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    const ScoredPrompt& scored = request_.prompts[i];
    event_.prompts[i].continuations.resize(scored.continuations.size());
    event_.prompt_tokens += scored.prompt.structure.size();
    const auto sequences = std::ranges::count_if(scored.continuations, NeedsSequence);
    unfinished_ += 1 + static_cast<int32_t>(sequences);
    Sequence::Tokens tokens{scored.prompt.token_ids, scored.prompt.structure};
    if (sequences > 1) tokens.structure.EndRun();
    std::vector<int32_t> logit_tokens = LogitTokensOf(scored);
    STRUCTATTN_CHECK(!logit_tokens.empty());
    prompts_.push_back(std::make_unique<Sequence>(this, std::move(tokens), request_.cache, model));
    prompts_.back()->set_role({.prompt = static_cast<int32_t>(i)});
    prompts_.back()->blocks().SetLogitTokens(std::move(logit_tokens));
  }
}

absl::Status ScoreTask::CheckFits(int32_t kv_blocks) const {
  for (size_t i = 0; i < prompts_.size(); ++i) {
    size_t longest = 1;
    for (const auto& ids : request_.prompts[i].continuations) {
      longest = std::max(longest, ids.size());
    }
    const int32_t behind = static_cast<int32_t>(longest) - 1;
    const int32_t blocks = prompts_[i]->BlocksWith(behind, request_.prompts[i].group);
    if (blocks <= kv_blocks) continue;
    return FieldError(
        absl::StatusCode::kResourceExhausted, {"prompt", "KV_MEMORY_EXCEEDED"},
        absl::StrCat(prompts_[i]->size(), " tokens in ", prompts_[i]->structure().runs().size(),
                     " runs of equal group and up to ", longest, " scored behind them take ",
                     blocks, " KV blocks of ", prompts_[i]->intervals().placement().alignment(),
                     " tokens: there are ", kv_blocks));
  }
  return absl::OkStatus();
}

Sequences ScoreTask::Begin() { return std::move(prompts_); }

absl::Status ScoreTask::Read(const LogitsRow& row, Sampler*) {
  NoteRead();
  STRUCTATTN_ASSIGN_OR_RETURN(const ScoredRow scored, ScoredRow::Make(row.logits));
  const auto& [prompt, continuation] = row.sequence->role();
  if (!continuation.has_value()) {
    ReadPrompt(row, scored);
    return absl::OkStatus();
  }
  const std::vector<int32_t>& ids = request_.prompts[prompt].continuations[*continuation];
  TokenScores& scores = event_.prompts[prompt].continuations[*continuation];
  Append(scored, ids[scores.logprobs.size()], &scores);
  return absl::OkStatus();
}

void ScoreTask::ReadPrompt(const LogitsRow& row, const ScoredRow& scored) {
  const int32_t number = row.sequence->role().prompt;
  const ScoredPrompt& asked = request_.prompts[number];
  PromptScores& scores = event_.prompts[number];
  const std::span<const int32_t> ids = row.sequence->token_ids();
  const int32_t next = row.token + 1;
  const bool is_last = next == row.sequence->size();
  if (!is_last && asked.prompt_logprobs_begin.has_value() && next >= *asked.prompt_logprobs_begin) {
    Append(scored, ids[next], &scores.prompt_logprobs);
  }
  if (std::ranges::binary_search(asked.read_outs, row.token)) {
    ReadOut read_out = {.token = row.token,
                        .candidate_logprobs = {},
                        .top_logprobs = scored.Best(request_.top_logprobs)};
    for (const int32_t id : request_.candidates) {
      read_out.candidate_logprobs.push_back(scored.Logprob(id));
    }
    scores.read_outs.push_back(std::move(read_out));
  }
  if (!is_last) return;
  for (size_t i = 0; i < asked.continuations.size(); ++i) {
    Append(scored, asked.continuations[i][0], &scores.continuations[i]);
  }
}

void ScoreTask::Advance(Sequence* sequence, BlockPool* pool, Sequences* forks) {
  const auto [prompt, continuation] = sequence->role();
  if (!continuation.has_value()) {
    for (const TokenRange& range : sequence->blocks().reused()) {
      event_.cached_tokens += range.end - range.begin;
    }
    const auto& continuations = request_.prompts[prompt].continuations;
    std::optional<int32_t> first;  // It takes over the prompt's sequence; the others fork that.
    for (int32_t i = 0; i < static_cast<int32_t>(continuations.size()); ++i) {
      if (!NeedsSequence(continuations[i])) continue;
      if (!first.has_value()) {
        first = i;
        continue;
      }
      forks->push_back(sequence->Fork(pool));
      Extend(forks->back().get(), i);
    }
    if (first.has_value()) Extend(sequence, *first);
  }
  FinishOne();
}

// Appends all tokens but the last: no logits are needed behind it.
void ScoreTask::Extend(Sequence* sequence, int32_t continuation) const {
  const int32_t prompt = sequence->role().prompt;
  const std::vector<int32_t>& ids = request_.prompts[prompt].continuations[continuation];
  std::vector<int32_t> logit_tokens;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    logit_tokens.push_back(sequence->size() + static_cast<int32_t>(i));
  }
  sequence->set_role({.prompt = prompt, .continuation = continuation});
  sequence->AppendGiven(std::span(ids).first(ids.size() - 1), request_.prompts[prompt].group);
  sequence->blocks().SetLogitTokens(std::move(logit_tokens));
}

void ScoreTask::FinishOne() {
  if (--unfinished_ > 0) return;
  set_ended();
  const Durations durations = DurationsUntil(absl::Now());
  event_.queue = durations.queue;
  event_.prefill = durations.prefill;
  event_.decode = durations.decode;
  const std::shared_ptr<ScoreSink> sink = std::move(sink_);
  sink->OnScores(std::move(event_));
}

void ScoreTask::Stop(FinishReason reason) { Fail(UnscoredError(reason)); }

void ScoreTask::Fail(const absl::Status& status) {
  set_ended();
  const std::shared_ptr<ScoreSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn::engine
