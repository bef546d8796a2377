// A set of characters as a regular expression names it: "[^\r\na-z\p{L}]", "\p{N}" or "\s", in the
// syntax and with the Unicode classes of the oracle's engine. Immutable.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_CHAR_SET_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_CHAR_SET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "server/model/tokenizer/unicode.h"

namespace structattn {

class CharSet {
 public:
  // The characters that have one of these bits of CharClass.
  static CharSet OfClasses(uint8_t classes);
  // Reads the set at the front of `regex` and takes it away; nothing if there is none or if it uses
  // what is not supported here (nested sets, other properties, a range that runs backwards).
  static std::optional<CharSet> Parse(std::string_view* regex);

  bool Has(char32_t c) const { return c < kAscii ? ascii_[c] : HasRare(c); }

 private:
  static constexpr char32_t kAscii = 128;

  // One element of a bracket; false if it is not supported.
  bool ParseItem(std::string_view* regex);
  void MergeRanges();
  bool HasRare(char32_t c) const;
  void FillAscii();

  bool negated_ = false;
  uint8_t classes_ = 0;
  std::vector<std::pair<char32_t, char32_t>>
      ranges_;  // First and last; sorted, apart, once parsed.
  std::array<bool, kAscii> ascii_{};
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_CHAR_SET_H_
