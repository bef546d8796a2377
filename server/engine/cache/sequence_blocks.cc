// Implements sequence_blocks.h.
#include "server/engine/cache/sequence_blocks.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/check.h"

namespace structattn::engine {

void SequenceBlocks::Extend(const SequenceTokens& tokens) {
  keys_.Extend(tokens);
  size_ = tokens.structure->size();
}

SequenceBlocks SequenceBlocks::Fork() const {
  SequenceBlocks fork = *this;
  fork.table_.clear();
  fork.acquired_.clear();
  fork.num_scheduled_ = 0;
  fork.committed_ = 0;
  return fork;
}

void SequenceBlocks::Share(const SequenceBlocks& other, BlockPool* pool) {
  STRUCTATTN_CHECK(table_.empty() && other.left() == 0 && other.num_scheduled_ <= size_);
  STRUCTATTN_CHECK(other.keys_.closed() == other.keys_.blocks());
  for (const int32_t block : other.table_) {
    pool->AddOwner(block);
    Append(block, true);
  }
  num_scheduled_ = other.num_scheduled_;
  num_computed_ = std::max(num_computed_, num_scheduled_);
}

void SequenceBlocks::SetLogitTokens(std::vector<int32_t> tokens) {
  STRUCTATTN_CHECK(std::ranges::is_sorted(tokens));
  STRUCTATTN_CHECK(tokens.empty() || tokens.front() >= num_scheduled_);
  logit_tokens_ = std::move(tokens);
  read_ = 0;
}

// A block that is computed in any case is not worth looking for.
bool SequenceBlocks::MayReuse(int32_t block) const {
  if (!Publishes(block)) return false;
  const BlockTokens& tokens = keys_.tokens(block);
  const std::span<const int32_t> unread = logit_tokens();
  const auto next = std::ranges::lower_bound(unread, tokens.begin);
  return tokens.end < size_ && (next == unread.end() || *next >= tokens.end);
}

bool SequenceBlocks::BeginsBlock() const {
  return table_.empty() ||
         keys_.tokens(static_cast<int32_t>(table_.size()) - 1).end == num_scheduled_;
}

void SequenceBlocks::Append(int32_t pool_block, bool acquired) {
  table_.push_back(pool_block);
  acquired_.push_back(acquired);
}

bool SequenceBlocks::Plan(PlanResources* resources, std::vector<TokenRange>* ranges) {
  const size_t first_range = ranges->size();
  while (left() > 0) {
    const bool begins = BeginsBlock();
    const int32_t block = static_cast<int32_t>(table_.size()) - (begins ? 0 : 1);
    if (begins && MayReuse(block)) {
      if (const auto found = resources->pool->Acquire(keys_.key(block)); found.has_value()) {
        Append(*found, true);
        num_scheduled_ = keys_.tokens(block).end;
        continue;
      }
      if (resources->awaited->contains(keys_.key(block))) return true;
    }
    if (resources->tokens == 0) return true;
    if (begins) {
      if (resources->pool->available() == 0) return false;
      Append(resources->pool->Allocate(), false);
    }
    if (Publishes(block)) resources->awaited->insert(keys_.key(block));
    const int32_t end = std::min(keys_.tokens(block).end, num_scheduled_ + resources->tokens);
    if (ranges->size() == first_range || ranges->back().end != num_scheduled_) {
      ranges->push_back({.begin = num_scheduled_, .end = num_scheduled_});
    }
    ranges->back().end = end;
    resources->tokens -= end - num_scheduled_;
    num_scheduled_ = end;
  }
  return true;
}

void SequenceBlocks::Commit(BlockPool* pool) {
  const int32_t held = std::min(static_cast<int32_t>(table_.size()), keys_.closed());
  for (; committed_ < held && keys_.tokens(committed_).end <= num_scheduled_; ++committed_) {
    const BlockTokens& tokens = keys_.tokens(committed_);
    if (!acquired_[committed_]) {
      if (Publishes(committed_)) pool->Publish(table_[committed_], keys_.key(committed_));
    } else if (tokens.end > num_computed_) {
      reused_.push_back({.begin = std::max(tokens.begin, num_computed_), .end = tokens.end});
    }
  }
  num_computed_ = std::max(num_computed_, num_scheduled_);
}

void SequenceBlocks::Release(BlockPool* pool) {
  for (size_t i = table_.size(); i > 0; --i) pool->Release(table_[i - 1]);
  table_.clear();
  acquired_.clear();
  num_scheduled_ = 0;
  committed_ = 0;
}

int32_t SequenceBlocks::BlocksMissing(const BlockPool& pool) const {
  int32_t missing = 0;
  for (int32_t block = static_cast<int32_t>(table_.size()); block < keys_.blocks(); ++block) {
    if (!MayReuse(block) || !pool.IsOwned(keys_.key(block))) ++missing;
  }
  return missing;
}

}  // namespace structattn::engine
