// The symbols as a linked list, and a tournament of the ranks of neighbouring pairs. Never
// allocates once its memory has grown.
#include "server/model/tokenizer/bpe_merge.h"

#include <algorithm>

namespace structattn {

inline uint64_t BpeMerger::FindMerge(const MergeTable& table, uint32_t i) {
  const Merge merge = table.Find(nodes_[i].id, nodes_[nodes_[i].next].id);
  if (merge.rank == Merge::kNoRank) return TournamentTree::kNone;
  nodes_[i].merged_id = merge.id;
  // By rank, then by position.
  return uint64_t{merge.rank} << 32 | i;
}

inline void BpeMerger::MergeAt(const MergeTable& table, uint32_t i, uint32_t size) {
  Node& node = nodes_[i];
  const uint32_t right = node.next;
  const uint32_t left = node.previous;
  node.id = node.merged_id;
  node.next = nodes_[right].next;
  const bool has_left = i > 0;
  const bool has_right = node.next < size;
  if (has_right) {
    table.Prefetch(node.id, nodes_[node.next].id);
    nodes_[node.next].previous = i;
  }
  if (has_left) table.Prefetch(nodes_[left].id, node.id);
  tree_.Set(right, TournamentTree::kNone);
  tree_.Set(i, has_right ? FindMerge(table, i) : TournamentTree::kNone);
  if (has_left) tree_.Set(left, FindMerge(table, left));
}

void BpeMerger::MergePair(const MergeTable& table, std::vector<BpeSymbol>* symbols) {
  BpeSymbol& left = (*symbols)[0];
  const BpeSymbol& right = (*symbols)[1];
  const Merge merge = table.Find(left.id, right.id);
  if (merge.rank == Merge::kNoRank) return;
  left = {merge.id, left.begin, right.end};
  symbols->pop_back();
}

void BpeMerger::MergeSymbols(const MergeTable& table, std::vector<BpeSymbol>* symbols) {
  const auto size = static_cast<uint32_t>(symbols->size());
  symbols_seen_ += size;
  if (size < 2) return;
  if (size == 2) return MergePair(table, symbols);
  nodes_.resize(std::max<size_t>(nodes_.size(), size));
  for (uint32_t i = 0; i < size; ++i) nodes_[i] = {(*symbols)[i].id, -1, i - 1, i + 1};
  tree_.Reset(size);
  for (uint32_t i = 0; i + 1 < size; ++i) tree_.SetLeaf(i, FindMerge(table, i));
  tree_.Build();
  while (tree_.least() != TournamentTree::kNone) {
    MergeAt(table, static_cast<uint32_t>(tree_.least()), size);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < size; i = nodes_[i].next) {
    (*symbols)[kept++] = {nodes_[i].id, (*symbols)[i].begin, (*symbols)[nodes_[i].next - 1].end};
  }
  symbols->resize(kept);
}

}  // namespace structattn
