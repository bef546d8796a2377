// Finds added tokens in text, before it is normalised or after. Knows nothing of segments: whether
// a special token may match at a place is the caller's decision.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// A part [begin, end) of a text: an added token, or (id -1) text between such.
struct TextPart {
  size_t begin;
  size_t end;
  int32_t id;
};

// Leftmost longest matching of many literals by a trie: linear in the text times the longest
// literal.
class AddedTokenMatcher {
 public:
  // `pattern` is the content to look for; the token's flags say how. Patterns must differ.
  void Add(std::string_view pattern, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // Whether the special token found at [begin, end) may match there. If not, its text is plain,
  // and no other token is looked for inside it (as in the oracle).
  using AllowSpecial = absl::FunctionRef<bool(size_t begin, size_t end)>;

  // Covers the text by parts in order; empty parts are left out.
  std::vector<TextPart> Split(std::string_view text, AllowSpecial allow_special) const;

 private:
  struct Match {
    size_t end = 0;
    int32_t token = -1;  // Index into tokens_.
  };

  Match LongestAt(std::string_view text, size_t begin) const;
  // Applies single_word, lstrip and rstrip; false if the token does not match after all.
  bool Stretch(std::string_view text, const AddedToken& token, size_t done, TextPart* part) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> first_bytes_{};
  // (node << 8 | byte) -> node; node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> token_of_node_ = {-1};
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_
