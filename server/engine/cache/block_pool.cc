// Implements block_pool.h with a stack of free blocks, a linked list of cached ones through their
// states, and a hash map from key to block.
#include "server/engine/cache/block_pool.h"

#include <numeric>

#include "kernels/check.h"

namespace structattn::engine {

BlockPool::BlockPool(int32_t blocks) : states_(blocks), free_(blocks) {
  std::iota(free_.rbegin(), free_.rend(), 0);  // Block 0 on top.
}

int32_t BlockPool::Allocate() {
  STRUCTATTN_CHECK(available() > 0);
  int32_t block = oldest_;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    RemoveCached(block);
    published_.erase(*states_[block].key);
    states_[block].key.reset();
  }
  states_[block].owners = 1;
  return block;
}

std::optional<int32_t> BlockPool::Acquire(const BlockKey& key) {
  const auto found = published_.find(key);
  if (found == published_.end()) return std::nullopt;
  const int32_t block = found->second;
  if (states_[block].owners++ == 0) RemoveCached(block);
  return block;
}

void BlockPool::AddOwner(int32_t block) {
  STRUCTATTN_CHECK(states_[block].owners > 0);
  ++states_[block].owners;
}

bool BlockPool::IsOwned(const BlockKey& key) const {
  const auto found = published_.find(key);
  return found != published_.end() && states_[found->second].owners > 0;
}

void BlockPool::Publish(int32_t block, const BlockKey& key) {
  State& state = states_[block];
  STRUCTATTN_CHECK(state.owners > 0 && !state.key.has_value());
  if (published_.try_emplace(key, block).second) state.key = key;
}

void BlockPool::Release(int32_t block) {
  State& state = states_[block];
  STRUCTATTN_CHECK(state.owners > 0);
  if (--state.owners > 0) return;
  if (state.key.has_value()) {
    AppendCached(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::AppendCached(int32_t block) {
  State& state = states_[block];
  state.older = newest_;
  state.newer = kNone;
  (newest_ == kNone ? oldest_ : states_[newest_].newer) = block;
  newest_ = block;
  ++cached_;
}

void BlockPool::RemoveCached(int32_t block) {
  const State& state = states_[block];
  (state.older == kNone ? oldest_ : states_[state.older].newer) = state.newer;
  (state.newer == kNone ? newest_ : states_[state.newer].older) = state.older;
  --cached_;
}

}  // namespace structattn::engine
