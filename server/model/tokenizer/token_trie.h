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
    const Node* node = nodes_.data();
    for (size_t i = 0; i < text.size();) {
      node = Child(*node, static_cast<uint8_t>(text[i++]));
      if (node == nullptr || !HasNext(*node, text.substr(i))) return;
      i += node->next_size;
      if (node->id >= 0) f(i, node->id);
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;
    uint8_t label = 0;      // The byte that leads to the node.
    uint8_t next_size = 0;  // Bytes behind it that every token here has, too: up to four.
    uint32_t next = 0;      // These bytes, as they lie in memory.
    uint32_t next_mask = 0;
    int32_t id = -1;
  };

  static bool HasNext(const Node& node, std::string_view text) {
    if (text.size() < node.next_size) return false;
    uint32_t bytes = 0;
    if (text.size() >= sizeof(bytes)) {
      std::memcpy(&bytes, text.data(), sizeof(bytes));
    } else {
      std::memcpy(&bytes, text.data(), text.size());
    }
    return ((bytes ^ node.next) & node.next_mask) == 0;
  }

  // Most nodes have one child, and most of the others are near the root.
  const Node* Child(const Node& parent, uint8_t label) const {
    const Node* const first = nodes_.data() + parent.first_child;
    if (parent.children == 1) return first->label == label ? first : nullptr;
    if (parent.children == 0) return nullptr;
    const uint8_t* const labels = labels_.data() + parent.first_child;
    const void* const found = std::memchr(labels, label, parent.children);
    return found == nullptr ? nullptr : first + (static_cast<const uint8_t*>(found) - labels);
  }

  std::vector<Node> nodes_;      // 0 is the root.
  std::vector<uint8_t> labels_;  // Of each node.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKEN_TRIE_H_
