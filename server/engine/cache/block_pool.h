// Which blocks of KV memory are in use, by how many owners, and which hold what under which key.
// Pure bookkeeping for one thread: touches no KV memory, knows no sequence.
#ifndef STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_POOL_H_
#define STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_POOL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace structattn::engine {

// Names the contents of a block: equal keys, equal keys and values in it (block_keys.h).
using BlockKey = std::array<uint8_t, 32>;

// A block is free; or owned by one or more sequences; or cached: published under a key, without
// owner, kept until its memory is needed.
class BlockPool {
 public:
  // Blocks [0, blocks), all free.
  explicit BlockPool(int32_t blocks);

  int32_t blocks() const { return static_cast<int32_t>(states_.size()); }
  // Blocks without owner: what Allocate can give.
  int32_t available() const { return static_cast<int32_t>(free_.size()) + cached_; }

  // A block with one owner and no key. available() > 0. O(1). Free blocks first, the one freed last
  // before the others: its memory is committed and warm; then the cached block that has been
  // without an owner for longest, which is forgotten.
  int32_t Allocate();

  // The block published under `key`, with one more owner. O(1).
  std::optional<int32_t> Acquire(const BlockKey& key);

  // One more owner of a block that has one. O(1).
  void AddOwner(int32_t block);

  // Whether a block published under `key` has an owner.
  bool IsOwned(const BlockKey& key) const;

  // Publishes an owned block whose contents are computed. No effect when `key` has a block: the
  // first one stays, this one is free when its owners go.
  void Publish(int32_t block, const BlockKey& key);

  // Takes an owner away. O(1).
  void Release(int32_t block);

  // Owners of a block.
  int32_t owners(int32_t block) const { return states_[block].owners; }

 private:
  static constexpr int32_t kNone = -1;

  struct State {
    int32_t owners = 0;
    std::optional<BlockKey> key = {};  // Published blocks have one.
    int32_t older = kNone;             // A cached block's neighbours in the list.
    int32_t newer = kNone;
  };

  void AppendCached(int32_t block);
  void RemoveCached(int32_t block);

  std::vector<State> states_;
  std::vector<int32_t> free_;  // A stack.
  absl::flat_hash_map<BlockKey, int32_t> published_;
  int32_t cached_ = 0;  // Blocks in the list from oldest_ to newest_.
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_CACHE_BLOCK_POOL_H_
