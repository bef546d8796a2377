// Builds the trie level by level from the sorted tokens.
#include "server/model/tokenizer/token_trie.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <utility>

namespace structattn {

TokenTrie::TokenTrie(const std::vector<std::string>& tokens) : nodes_(1), labels_(1) {
  std::vector<std::pair<std::string_view, int32_t>> sorted;
  sorted.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) sorted.emplace_back(tokens[id], static_cast<int32_t>(id));
  }
  std::sort(sorted.begin(), sorted.end());
  // The tokens [begin, end) share the first `depth` bytes, which lead to the node.
  struct Level {
    size_t begin, end, depth;
    uint32_t node;
  };
  std::deque<Level> levels = {{0, sorted.size(), 0, 0}};
  for (; !levels.empty(); levels.pop_front()) {
    Level level = levels.front();
    if (level.begin < level.end && sorted[level.begin].first.size() == level.depth) {
      nodes_[level.node].id = sorted[level.begin++].second;
    }
    nodes_[level.node].first_child = static_cast<uint32_t>(nodes_.size());
    for (size_t begin = level.begin, end = begin; begin < level.end; begin = end) {
      const char label = sorted[begin].first[level.depth];
      while (end < level.end && sorted[end].first[level.depth] == label) ++end;
      Node child{.label = static_cast<uint8_t>(label)};
      // Sorted, so what the first and the last have in common all have.
      const std::string_view first = sorted[begin].first.substr(level.depth + 1);
      const std::string_view last = sorted[end - 1].first.substr(level.depth + 1);
      std::array<uint8_t, sizeof(child.next)> mask{};
      while (child.next_size < mask.size() && child.next_size < first.size() &&
             first[child.next_size] == last[child.next_size]) {
        mask[child.next_size++] = 0xFF;
      }
      std::memcpy(&child.next, first.data(), child.next_size);
      std::memcpy(&child.next_mask, mask.data(), mask.size());
      levels.push_back(
          {begin, end, level.depth + 1 + child.next_size, static_cast<uint32_t>(nodes_.size())});
      ++nodes_[level.node].children;
      nodes_.push_back(child);
      labels_.push_back(static_cast<uint8_t>(label));
    }
  }
}

}  // namespace structattn
