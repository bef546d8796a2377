// Implements sequence.h.
#include "server/engine/task/sequence.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"

namespace structattn::engine {

namespace {

// 1 + the largest position, where that is more than the model's rotary embedding takes as it is.
int32_t RopeLength(const Structure& structure, const SequenceModel& model) {
  const std::span<const int32_t> positions = structure.positions();
  const int32_t length = positions.empty() ? 0 : 1 + std::ranges::max(positions);
  return length > model.dynamic_rope_length ? length : 0;
}

}  // namespace

Sequence::Sequence(Task* task, Tokens tokens, const CachePolicy& cache, const SequenceModel& model)
    : task_(task),
      tokens_(std::move(tokens)),
      decode_tiles_(model.decode_tiles),
      has_window_(model.has_window),
      rope_length_(RopeLength(tokens_.structure, model)),
      prompt_tokens_(tokens_.structure.size()),
      intervals_(Placement(model.block_size)),
      blocks_(model.block_size, cache) {
  STRUCTATTN_CHECK(prompt_tokens_ > 0);
  STRUCTATTN_CHECK(static_cast<size_t>(prompt_tokens_) == tokens_.ids.size());
  TakeIn();
}

void Sequence::TakeIn() {
  intervals_.Extend(structure());
  blocks_.Extend(
      {.structure = &structure(),
       .token_ids = token_ids(),
       .generated_begin = decode_tiles_ ? prompt_tokens_ : std::numeric_limits<int32_t>::max(),
       .rope_length = rope_length_,
       .index_gaps_matter = has_window_});
}

int32_t Sequence::BlocksWith(int32_t tokens, int group) const {
  const Placement& placement = intervals_.placement();
  const int32_t block_size = placement.alignment();
  const auto round_up = [block_size](int32_t slots) {
    return (slots + block_size - 1) / block_size;
  };
  int32_t slots = placement.SlotsOf(size());
  if (structure().runs().back().group != group || structure().run_ended()) {
    slots = round_up(slots) * block_size;
  }
  return round_up(slots + tokens);
}

void Sequence::AppendGenerated(int32_t token_id, int group) {
  tokens_.ids.push_back(token_id);
  tokens_.structure.Append(group);
  TakeIn();
  blocks_.SetLogitTokens({size() - 1});
}

void Sequence::AppendGiven(std::span<const int32_t> token_ids, int group) {
  STRUCTATTN_CHECK(size() == prompt_tokens_);
  tokens_.ids.insert(tokens_.ids.end(), token_ids.begin(), token_ids.end());
  for (size_t i = 0; i < token_ids.size(); ++i) tokens_.structure.Append(group);
  prompt_tokens_ = size();
  TakeIn();
}

std::unique_ptr<Sequence> Sequence::Fork(BlockPool* pool) const {
  std::unique_ptr<Sequence> fork(new Sequence(*this));
  fork->blocks_ = blocks_.Fork();
  fork->blocks_.Share(blocks_, pool);
  return fork;
}

}  // namespace structattn::engine
