// The names under which KV blocks are shared: a hash of everything that the keys and values in a
// block depend on. Pure: touches no KV memory and no pool. server/engine/README.md shows why equal
// names mean equal bits.
#ifndef STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_KEYS_H_
#define STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_KEYS_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/attention/structure.h"
#include "server/engine/cache/block_pool.h"

namespace structattn::engine {

// The tokens of one growing sequence.
struct SequenceTokens {
  const Structure* structure;
  std::span<const int32_t> token_ids;
  // Tokens from this index on were generated, and are computed in another way than those of a
  // prompt; INT32_MAX where the device makes no difference.
  int32_t generated_begin;
  // What the rotary embedding depends on beside a token's position; 0 for nothing.
  int32_t rope_length = 0;
  // Whether a key depends on how many tokens lie between what it sees, seen or not: true on models
  // with a sliding window.
  bool index_gaps_matter = false;
};

// Tokens [begin, end) of one run that lie in one block.
struct BlockTokens {
  int32_t begin;
  int32_t end;
  int32_t group;
};

// Blocks of one sequence placed with its block size (kernels/attention/placement.h), in order.
class BlockKeys {
 public:
  // Only sequences with equal `salt` have equal keys.
  BlockKeys(int32_t block_size, std::string_view salt);

  // Takes in the tokens appended since the last call: always the same growing sequence. O(new
  // tokens), and per new block O(distinct rows in use).
  void Extend(const SequenceTokens& tokens);

  int32_t blocks() const { return static_cast<int32_t>(tokens_.size()); }
  const BlockTokens& tokens(int32_t block) const { return tokens_[block]; }

  // Blocks [0, closed()) have their key: no token can join them any more, since they are full or
  // their run has ended.
  int32_t closed() const { return static_cast<int32_t>(keys_.size()); }
  const BlockKey& key(int32_t block) const { return keys_[block]; }

 private:
  // What the groups with one row of the rule table see, in order.
  struct Viewer {
    uint64_t row;
    int32_t next_block = 0;  // Blocks before it are in the state if they are seen.
    BlockKey state = {};
    int32_t last_begin = -1;  // Where the last of them begins.

    // From the last block that is seen to one that begins at `begin`; 0 where there is none.
    int32_t GapTo(int32_t begin) const { return last_begin < 0 ? 0 : begin - last_begin; }
  };

  void Close(const SequenceTokens& tokens, int32_t block);
  const Viewer& ViewerBefore(int32_t block, uint64_t row);

  int32_t block_size_;
  BlockKey salt_;
  bool index_gaps_matter_ = false;
  std::vector<BlockTokens> tokens_;
  std::vector<BlockKey> keys_;
  std::vector<Viewer> viewers_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_KEYS_H_
