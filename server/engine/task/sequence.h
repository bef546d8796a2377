// One growing list of tokens with its structure and its blocks of KV memory: a prompt, or a prompt
// and one of its continuations. Knows no client and no sampling; decides nothing.
#ifndef STRUCTATTN_SERVER_ENGINE_TASK_SEQUENCE_H_
#define STRUCTATTN_SERVER_ENGINE_TASK_SEQUENCE_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention/structure.h"
#include "kernels/attention/work_list.h"
#include "server/engine/cache/sequence_blocks.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn::engine {

class Task;

// What sequences and tasks need to know of their model.
struct SequenceModel {
  const Tokenizer* tokenizer = nullptr;
  std::span<const int32_t> eos_token_ids = {};
  int64_t context_length = 0;
  int32_t block_size = 0;  // Tokens per block of KV memory.
  // Whether generated tokens are computed in another way than those of a prompt (Tiling).
  bool decode_tiles = false;
  bool has_window = false;  // Some layer has a sliding window.
  // Prompts of more positions have a rotary embedding of their own (Decoder).
  int32_t dynamic_rope_length = std::numeric_limits<int32_t>::max();
};

// What a sequence is to its task: one of its prompts, or a continuation of that prompt.
struct SequenceRole {
  int32_t prompt = 0;
  std::optional<int32_t> continuation = {};
};

class Sequence {
 public:
  // Tokens and structure of a prompt that is not empty.
  struct Tokens {
    std::vector<int32_t> ids;
    Structure structure;
  };

  // `task` outlives the sequence.
  Sequence(Task* task, Tokens tokens, const CachePolicy& cache, const SequenceModel& model);
  Sequence& operator=(const Sequence&) = delete;

  Task& task() const { return *task_; }
  const SequenceRole& role() const { return role_; }
  void set_role(const SequenceRole& role) { role_ = role; }

  const Structure& structure() const { return tokens_.structure; }
  const VisibleIntervals& intervals() const { return intervals_; }
  std::span<const int32_t> token_ids() const { return tokens_.ids; }
  int32_t size() const { return structure().size(); }
  // Tokens that are computed as those of a prompt; those behind them were generated.
  int32_t prompt_tokens() const { return prompt_tokens_; }

  // The positions that the prompt has, where its rotary embedding depends on them; else 0. It stays
  // what it is for all that is appended.
  int32_t rope_length() const { return rope_length_; }

  // Blocks that this sequence takes with `tokens` more tokens of `group`.
  int32_t BlocksWith(int32_t tokens, int group) const;

  SequenceBlocks& blocks() { return blocks_; }
  const SequenceBlocks& blocks() const { return blocks_; }

  // Append a token that was generated, whose logits are read; or given ones.
  void AppendGenerated(int32_t token_id, int group);
  void AppendGiven(std::span<const int32_t> token_ids, int group);

  // A sequence of the same task and tokens which shares all blocks; everything here is computed,
  // and the structure's run has ended.
  std::unique_ptr<Sequence> Fork(BlockPool* pool) const;

 private:
  Sequence(const Sequence&) = default;
  void TakeIn();

  Task* const task_;
  SequenceRole role_;
  Tokens tokens_;
  const bool decode_tiles_;
  const bool has_window_;
  const int32_t rope_length_;
  int32_t prompt_tokens_;
  VisibleIntervals intervals_;
  SequenceBlocks blocks_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_TASK_SEQUENCE_H_
