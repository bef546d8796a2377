// What one sequence holds of KV memory: its block table, which blocks it shares, and how far its
// tokens are computed. Touches no KV memory and decides nothing about other sequences.
#ifndef STRUCTATTN_SERVER_ENGINE_CACHE_SEQUENCE_BLOCKS_H_
#define STRUCTATTN_SERVER_ENGINE_CACHE_SEQUENCE_BLOCKS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/engine/cache/block_keys.h"
#include "server/engine/cache/block_pool.h"

namespace structattn::engine {

// What a sequence may share of keys and values with other requests.
struct CachePolicy {
  bool bypass = false;  // Neither use theirs nor let them use ours.
  std::string salt;     // Only requests with equal salt share.
};

// Tokens [begin, end) of a sequence.
struct TokenRange {
  int32_t begin;
  int32_t end;
  bool operator==(const TokenRange&) const = default;
};

// Keys of the blocks that a step will fill.
using AwaitedKeys = absl::flat_hash_set<BlockKey>;

// Everything that a plan may take.
struct PlanResources {
  int32_t tokens;  // Computed at most.
  BlockPool* pool;
  AwaitedKeys* awaited;  // What sequences scheduled before in this step compute.
};

class SequenceBlocks {
 public:
  SequenceBlocks(int32_t block_size, const CachePolicy& policy)
      : bypass_(policy.bypass), keys_(block_size, policy.salt) {}

  // Takes in the tokens appended since the last call, and the end of their last run.
  void Extend(const SequenceTokens& tokens);

  // A sequence of the same tokens that holds no blocks.
  SequenceBlocks Fork() const;
  // Becomes a further owner of all blocks of `other`, whose tokens are all computed and are the
  // first of this sequence's, which holds no blocks yet. The last run of `other` has ended.
  void Share(const SequenceBlocks& other, BlockPool* pool);

  // Tokens whose logits are read, ascending; none is scheduled yet. They are computed even where
  // their keys and values are in the pool, once: from then on they are no logit tokens any more.
  void SetLogitTokens(std::vector<int32_t> tokens);
  // The logit tokens that are not read yet.
  std::span<const int32_t> logit_tokens() const { return std::span(logit_tokens_).subspan(read_); }
  // The first `count` of them have been read.
  void MarkRead(size_t count) { read_ += count; }

  int32_t size() const { return size_; }  // Tokens taken in.
  // Tokens [0, num_scheduled) lie in blocks of the table, or will when the scheduled step has run.
  int32_t num_scheduled() const { return num_scheduled_; }
  int32_t left() const { return size_ - num_scheduled_; }

  // Block ids: slot s of the sequence is in table()[s / block_size].
  std::span<const int32_t> table() const { return table_; }

  // Goes on from num_scheduled(): skips blocks that the pool has, appends to `ranges` what is to be
  // computed, and takes blocks for it. Logit tokens are always computed, and so is the last one:
  // a sequence that is scheduled has a token in the step. Stops where another sequence of the step
  // fills the very block that comes next (its contents are there in the next step), and false where
  // the pool has no block.
  bool Plan(PlanResources* resources, std::vector<TokenRange>* ranges);

  // The scheduled tokens are computed: publishes the blocks that are complete.
  void Commit(BlockPool* pool);

  // Gives all blocks back; nothing is computed any more. The end of the sequence goes first, so
  // that it is forgotten before what leads to it.
  void Release(BlockPool* pool);

  // Blocks that the tokens not scheduled yet would take out of pool.available() now.
  int32_t BlocksMissing(const BlockPool& pool) const;

  // Tokens whose keys and values were found in the pool and never computed for this sequence.
  std::span<const TokenRange> reused() const { return reused_; }

 private:
  bool Publishes(int32_t block) const { return !bypass_ && block < keys_.closed(); }
  bool MayReuse(int32_t block) const;
  bool BeginsBlock() const;  // The next token is the first of its block.
  void Append(int32_t pool_block, bool acquired);

  bool bypass_;
  BlockKeys keys_;
  int32_t size_ = 0;
  int32_t num_scheduled_ = 0;
  std::vector<int32_t> table_;
  std::vector<bool> acquired_;  // Beside table_: from the pool's published blocks.
  int32_t committed_ = 0;       // Complete blocks at the start of the table seen by Commit.
  int32_t num_computed_ =
      0;  // The most tokens ever committed: more than num_scheduled_ once preempted.
  std::vector<TokenRange> reused_;
  std::vector<int32_t> logit_tokens_;
  size_t read_ = 0;  // How many of logit_tokens_ were read.
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_CACHE_SEQUENCE_BLOCKS_H_
