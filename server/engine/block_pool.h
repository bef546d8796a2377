// Which blocks of KV memory are in use, and by how many owners. Pure bookkeeping: touches no KV
// memory, knows no sequence.
// Used by server/engine/serving_loop, on the engine thread only.
#ifndef STRUCTATTN_SERVER_ENGINE_BLOCK_POOL_H_
#define STRUCTATTN_SERVER_ENGINE_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

namespace structattn {

class BlockPool {
 public:
  // Blocks [0, blocks), all free.
  explicit BlockPool(int32_t blocks);

  int32_t blocks() const { return static_cast<int32_t>(references_.size()); }
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }

  // A free block with one owner. There must be one. O(1). The block freed last is given first: its
  // memory is committed and warm.
  int32_t Allocate();

  // Adds an owner to a block in use. O(1).
  void Share(int32_t block);

  // Takes an owner away; without owners the block is free. O(1).
  void Release(int32_t block);

  // Owners of a block; 0: free.
  int32_t references(int32_t block) const { return references_[block]; }

 private:
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;  // A stack.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_ENGINE_BLOCK_POOL_H_
