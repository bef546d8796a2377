// Implements generation.h.
#include "server/engine/task/generation.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace structattn::engine {
namespace {

// The prompt tokens that its first prediction sees.
std::vector<int32_t> SeenIds(const EncodedPrompt& prompt, const Branch& branch) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i <= branch.predicted_from; ++i) {
    if (MaySee(prompt.structure, branch.predicted_from, i)) ids.push_back(prompt.token_ids[i]);
  }
  return ids;
}

}  // namespace

GenerationStart StartOf(const GenerateRequest& request, const SamplingParams& sampling,
                        int32_t branch, int32_t sample) {
  const Branch& asked = request.branches[branch];
  std::span<const int32_t> ids = request.prompt.token_ids;
  std::vector<int32_t> own;
  if (asked.per_paraphrase_prompt) {
    own = SeenIds(request.prompt, asked);
    ids = own;
  }
  GenerationStart start{.sampling = &sampling,
                        .branch = branch,
                        .sample = sample,
                        .given_tokens = static_cast<int64_t>(ids.size() + asked.cue.size()),
                        .history = TokenHistory(sampling, ids)};
  start.history.AddGiven(asked.cue);
  return start;
}

Generation::Generation(const GenerateRequest& request, GenerationStart start,
                       const SequenceModel& model)
    : sampling_(start.sampling),
      top_logprobs_(request.top_logprobs),
      branch_(start.branch),
      sample_(start.sample),
      max_tokens_(static_cast<int32_t>(std::clamp<int64_t>(
          model.context_length - start.given_tokens, 0, request.stopping.max_tokens))),
      history_(std::move(start.history)),
      text_(request.stopping, model.eos_token_ids, model.tokenizer->NewStreamDecoder()) {
  if (max_tokens_ == 0) finish_ = FinishReason::kLength;
}

// Branches draw the same numbers: each is what it would be alone.
SampleInput Generation::NextSample(std::span<const float> logits) const {
  return {.logits = logits,
          .params = sampling_,
          .history = &history_,
          .draw = {.seed = sampling_->seed,
                   .continuation = static_cast<uint32_t>(sample_),
                   .token = static_cast<uint32_t>(tokens_)},
          .top_logprobs = top_logprobs_};
}

TokenEvent Generation::Accept(SampledToken token) {
  ++tokens_;
  last_token_ = token.token_id;
  logprob_ += token.logprob;
  history_.AddGenerated(token.token_id);
  TextStream::Piece piece = text_.Push(token.token_id);
  finish_ = piece.finish;
  if (!finish_.has_value() && tokens_ == max_tokens_) finish_ = FinishReason::kLength;
  TokenEvent event;
  event.text = std::move(piece.text);
  if (finish_.has_value()) event.text += text_.Finish();
  event.token_ids = {token.token_id};
  event.logprobs = {token.logprob};
  if (top_logprobs_ > 0) event.top_logprobs.push_back(std::move(token.top_logprobs));
  event.finish = finish_;
  return event;
}

TokenEvent Generation::End(FinishReason reason) {
  finish_ = reason;
  TokenEvent event;
  event.text = text_.Finish();
  event.finish = reason;
  return event;
}

}  // namespace structattn::engine
