// What a Split pre-tokenizer looks for: a literal text, one of the known word patterns, or a
// regular expression that is a run of characters of one set. Finds matches as the oracle's engine
// does it, in time linear in the text whatever it holds. Never changes the text.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_SPLIT_PATTERN_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_SPLIT_PATTERN_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "server/model/tokenizer/char_set.h"

namespace structattn {

// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin;
  size_t end;
};

// Patterns that cut any text into words: each word begins where the one before it ends.
enum class WordPattern { kGpt2, kLlama3, kQwen2 };

// `PREFIX? SET{1,most}`, or `SET+$`.
struct RunPattern {
  static constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

  std::optional<CharSet> prefix;  // At most one such character in front of the run.
  CharSet set;
  size_t most = kNoLimit;
  bool at_line_end = false;  // The run ends before a line feed or with the text.
};

class SplitPattern {
 public:
  // Nothing for a regular expression that is not implemented.
  static std::optional<SplitPattern> FromRegex(std::string_view regex);
  static SplitPattern Literal(std::string text) { return SplitPattern(std::move(text)); }
  static SplitPattern Words(WordPattern words) { return SplitPattern(words); }
  // The Digits pre-tokenizer.
  static SplitPattern Digits(bool individual);

  // Not null: every match of the pattern is a word, and there is nothing between them.
  const WordPattern* words() const { return std::get_if<WordPattern>(&pattern_); }

  // The first match in `text` that begins at `from` or behind it; never an empty one.
  std::optional<TextSpan> Find(std::string_view text, size_t from) const;

 private:
  using Pattern = std::variant<WordPattern, RunPattern, std::string>;
  explicit SplitPattern(Pattern pattern) : pattern_(std::move(pattern)) {}

  Pattern pattern_;
};

// The end of the word that begins at `begin` < text.size().
size_t WordEnd(WordPattern words, std::string_view text, size_t begin);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_SPLIT_PATTERN_H_
