// All tokens at the front of a text, the shorter before the longer. Immutable. The children of a
// node lie side by side, so that one is found by a search through a few bytes; where tokens go on
// alike, a node stands for several bytes.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKEN_TRIE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKEN_TRIE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace structattn {

class TokenTrie {
 public:
  // The id of a token is its index; empty ones are never found.
  explicit TokenTrie(const std::vector<std::string>& tokens);

  // Calls f(size, id) for each token that `text` begins with.
  template <typename F>
  void ForEachPrefix(std::string_view text, F f) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const Node& parent = nodes_[node];
      if (parent.children == 0) return;
      const void* const found = std::memchr(labels_.data() + parent.first_child,
                                            static_cast<uint8_t>(text[i]), parent.children);
      if (found == nullptr) return;
      node = static_cast<uint32_t>(static_cast<const uint8_t*>(found) - labels_.data());
      if (nodes_[node].id >= 0) f(i + 1, nodes_[node].id);
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    uint32_t children = 0;
    int32_t id = -1;
  };

  std::vector<Node> nodes_;      // 0 is the root.
  std::vector<uint8_t> labels_;  // The byte that leads to the node.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKEN_TRIE_H_
