// Implements sequence.h.
#include "server/engine/sequence.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "kernels/check.h"

namespace structattn {
namespace {

int32_t MaxGeneratedTokens(const Request& request, int64_t context_length) {
  const int64_t room = context_length - request.prompt.structure.size();
  return static_cast<int32_t>(std::clamp<int64_t>(room, 0, request.stopping.max_tokens));
}

}  // namespace

Sequence::Sequence(uint64_t ticket, Request request, std::shared_ptr<EventSink> sink,
                   const SequenceModel& model)
    : ticket_(ticket),
      request_(std::move(request)),
      sink_(std::move(sink)),
      intervals_(Placement(model.block_size)),
      blocks_(model.block_size, request_.cache),
      history_(request_.sampling, request_.prompt.token_ids),
      text_(request_.stopping, model.eos_token_ids, model.tokenizer->NewStreamDecoder()),
      prompt_tokens_(request_.prompt.structure.size()),
      max_generated_tokens_(MaxGeneratedTokens(request_, model.context_length)),
      generated_begin_(model.generated_apart ? prompt_tokens_
                                             : std::numeric_limits<int32_t>::max()) {
  STRUCTATTN_CHECK(prompt_tokens_ > 0);
  STRUCTATTN_CHECK(static_cast<size_t>(prompt_tokens_) == request_.prompt.token_ids.size());
  TakeIn();
}

void Sequence::TakeIn() {
  intervals_.Extend(structure());
  blocks_.Extend(
      {.structure = &structure(), .token_ids = token_ids(), .generated_begin = generated_begin_});
}

int32_t Sequence::MaxBlocks() const {
  const Placement& placement = intervals_.placement();
  const int32_t block_size = placement.alignment();
  int32_t slots = placement.SlotsOf(size());
  if (structure().runs().back().group != request_.generated_group) {
    slots = (slots + block_size - 1) / block_size * block_size;
  }
  return (slots + max_generated_tokens_ - generated_tokens() + block_size - 1) / block_size;
}

SampleInput Sequence::NextSample(std::span<const float> logits) const {
  return {.logits = logits,
          .params = &request_.sampling,
          .history = &history_,
          .draw = {.seed = request_.sampling.seed,
                   .continuation = 0,
                   .token = static_cast<uint32_t>(generated_tokens())},
          .top_logprobs = request_.top_logprobs};
}

std::optional<FinishReason> Sequence::Accept(SampledToken token, absl::Time now) {
  if (!first_token_.has_value()) first_token_ = now;
  request_.prompt.token_ids.push_back(token.token_id);
  request_.prompt.structure.Append(request_.generated_group);
  TakeIn();
  history_.AddGenerated(token.token_id);

  TextStream::Piece piece = text_.Push(token.token_id);
  if (!piece.finish.has_value() && generated_tokens() == max_generated_tokens_) {
    piece.finish = FinishReason::kLength;
  }
  TokenEvent event;
  event.text = std::move(piece.text);
  if (piece.finish.has_value()) event.text += text_.Finish();
  event.token_ids = {token.token_id};
  event.logprobs = {token.logprob};
  if (request_.top_logprobs > 0) event.top_logprobs.push_back(std::move(token.top_logprobs));
  sink_->OnToken(std::move(event));
  return piece.finish;
}

void Sequence::Finish(FinishReason reason, absl::Time now) {
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  if (std::string held = text_.Finish(); !held.empty()) {
    TokenEvent event;
    event.text = std::move(held);
    sink->OnToken(std::move(event));
  }
  sink->OnFinish(MakeFinish(reason, now));
}

FinishEvent Sequence::MakeFinish(FinishReason reason, absl::Time now) const {
  const absl::Time started = started_.value_or(now);
  const absl::Time first_token = first_token_.value_or(now);
  FinishEvent event = {.reason = reason,
                       .prompt_tokens = prompt_tokens_,
                       .cached_tokens = 0,
                       .cached_per_segment = std::vector<int32_t>(request_.prompt.segment_count),
                       .generated_tokens = generated_tokens(),
                       .queue = started - request_.arrival,
                       .prefill = first_token - started,
                       .decode = now - first_token};
  for (const TokenRange& range : blocks_.reused()) {
    for (int32_t i = range.begin; i < std::min(range.end, prompt_tokens_); ++i) {
      ++event.cached_tokens;
      const int32_t segment = request_.prompt.segments[i];
      if (segment >= 0) ++event.cached_per_segment[segment];
    }
  }
  return event;
}

void Sequence::Fail(const absl::Status& status) {
  const std::shared_ptr<EventSink> sink = std::move(sink_);
  sink->OnError(status);
}

}  // namespace structattn
