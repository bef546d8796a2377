// Implements generation.h.
#include "server/engine/generation.h"

#include <algorithm>
#include <string>
#include <utility>

namespace structattn {
namespace {

int32_t MaxTokens(const Request& request, int32_t branch, int64_t context_length) {
  const int64_t given =
      request.prompt.structure.size() + static_cast<int64_t>(request.branches[branch].cue.size());
  return static_cast<int32_t>(
      std::clamp<int64_t>(context_length - given, 0, request.stopping.max_tokens));
}

}  // namespace

Generation::Generation(const Request& request, int32_t branch, int32_t sample,
                       const SequenceModel& model)
    : sampling_(&request.sampling),
      top_logprobs_(request.top_logprobs),
      branch_(branch),
      sample_(sample),
      max_tokens_(MaxTokens(request, branch, model.context_length)),
      history_(request.sampling, request.prompt.token_ids),
      text_(request.stopping, model.eos_token_ids, model.tokenizer->NewStreamDecoder()) {
  history_.AddGiven(request.branches[branch].cue);
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

}  // namespace structattn
