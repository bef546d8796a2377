// The least of a row of keys of which some change: a binary tree whose nodes hold the smaller of
// their two children. A change costs a walk to the root, without a branch that depends on the keys.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_TOURNAMENT_TREE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_TOURNAMENT_TREE_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace structattn {

class TournamentTree {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;

  // `size` keys, all kNone. Then any number of SetLeaf, one Build, any number of Set.
  void Reset(size_t size) {
    leaves_ = std::bit_ceil(size);
    nodes_.resize(std::max(nodes_.size(), 2 * leaves_));
    std::fill_n(nodes_.begin() + static_cast<ptrdiff_t>(leaves_), leaves_, kNone);
  }
  void SetLeaf(size_t i, uint64_t key) { nodes_[leaves_ + i] = key; }
  void Build() {
    for (size_t node = leaves_ - 1; node > 0; --node) {
      nodes_[node] = std::min(nodes_[2 * node], nodes_[2 * node + 1]);
    }
  }

  void Set(size_t i, uint64_t key) {
    size_t node = leaves_ + i;
    nodes_[node] = key;
    for (; node > 1; node /= 2) {
      key = std::min(key, nodes_[node ^ 1]);
      nodes_[node / 2] = key;
    }
  }
  uint64_t least() const { return nodes_[1]; }

 private:
  size_t leaves_ = 0;
  std::vector<uint64_t> nodes_;  // The children of node i are 2 i and 2 i + 1; 1 is the root.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_TOURNAMENT_TREE_H_
