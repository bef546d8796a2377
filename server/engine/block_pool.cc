// Implements block_pool.h with a stack of free blocks and one count per block.
#include "server/engine/block_pool.h"

#include <numeric>

#include "kernels/check.h"

namespace structattn {

BlockPool::BlockPool(int32_t blocks) : references_(blocks, 0), free_(blocks) {
  std::iota(free_.rbegin(), free_.rend(), 0);  // Block 0 on top.
}

int32_t BlockPool::Allocate() {
  STRUCTATTN_CHECK(!free_.empty());
  const int32_t block = free_.back();
  free_.pop_back();
  references_[block] = 1;
  return block;
}

void BlockPool::Share(int32_t block) {
  STRUCTATTN_CHECK(references_[block] > 0);
  ++references_[block];
}

void BlockPool::Release(int32_t block) {
  STRUCTATTN_CHECK(references_[block] > 0);
  if (--references_[block] == 0) free_.push_back(block);
}

}  // namespace structattn
