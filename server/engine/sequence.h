// One request while it is served: its tokens and their structure, its blocks of KV memory, and its
// voice to the client.
// Made by server/engine/engine, driven by server/engine/serving_loop. Decides nothing about others.
#ifndef STRUCTATTN_SERVER_ENGINE_SEQUENCE_H_
#define STRUCTATTN_SERVER_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/attention/structure.h"
#include "kernels/attention/work_list.h"
#include "server/engine/request.h"
#include "server/engine/sampler.h"
#include "server/engine/sequence_blocks.h"
#include "server/engine/text_stream.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

// What a sequence needs to know of its model.
struct SequenceModel {
  const Tokenizer* tokenizer;
  std::span<const int32_t> eos_token_ids;
  int64_t context_length;
  int32_t block_size;  // Tokens per block of KV memory.
  // Whether generated tokens are computed in another way than those of a prompt (Tiling).
  bool generated_apart = false;
};

class Sequence {
 public:
  // `ticket` names the sequence among all of its engine. The prompt has at least one token.
  Sequence(uint64_t ticket, Request request, std::shared_ptr<EventSink> sink,
           const SequenceModel& model);

  uint64_t ticket() const { return ticket_; }
  absl::Time deadline() const { return request_.deadline; }
  const Structure& structure() const { return request_.prompt.structure; }
  const VisibleIntervals& intervals() const { return intervals_; }
  std::span<const int32_t> token_ids() const { return request_.prompt.token_ids; }

  int32_t size() const { return structure().size(); }  // Prompt and generated tokens.
  int32_t prompt_tokens() const { return prompt_tokens_; }
  int32_t generated_tokens() const { return size() - prompt_tokens_; }
  // Generated tokens at most: max_tokens, cut to what the context leaves; may be 0.
  int32_t max_generated_tokens() const { return max_generated_tokens_; }
  // Blocks that the prompt and all it may generate take.
  int32_t MaxBlocks() const;

  SequenceBlocks& blocks() { return blocks_; }
  const SequenceBlocks& blocks() const { return blocks_; }

  // Work begins, for the first time or again: the first time ends the queue time.
  void Start(absl::Time now) { started_ = started_.value_or(now); }

  // Everything that choosing the next token from `logits` depends on.
  SampleInput NextSample(std::span<const float> logits) const;
  // Appends the chosen token and tells the client; the reason when it is the last one.
  std::optional<FinishReason> Accept(SampledToken token, absl::Time now);

  // Tells the client the end and lets go of its sink. Exactly one of the two is called, once.
  void Finish(FinishReason reason, absl::Time now);
  void Fail(const absl::Status& status);

 private:
  void TakeIn();
  FinishEvent MakeFinish(FinishReason reason, absl::Time now) const;

  const uint64_t ticket_;
  Request request_;  // token_ids and structure grow with the generated tokens.
  std::shared_ptr<EventSink> sink_;
  VisibleIntervals intervals_;
  SequenceBlocks blocks_;
  TokenHistory history_;
  TextStream text_;
  const int32_t prompt_tokens_;
  const int32_t max_generated_tokens_;
  const int32_t generated_begin_;  // SequenceTokens::generated_begin.
  std::optional<absl::Time> started_;
  std::optional<absl::Time> first_token_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_SEQUENCE_H_
