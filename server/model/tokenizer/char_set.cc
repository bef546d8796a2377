// Parses one set of a regular expression and tells its members. Never sees the rest of it.
#include "server/model/tokenizer/char_set.h"

#include <algorithm>

#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

struct NamedClass {
  std::string_view text;
  CharClass bit;
};
constexpr NamedClass kNamedClasses[] = {
    {"\\p{L}", kLetter}, {"\\p{N}", kNumber}, {"\\p{P}", kPunctuation}, {"\\s", kSpace}};

// The bit of the class named at the front of `regex`, which is taken away, or 0.
uint8_t TakeClass(std::string_view* regex) {
  for (const NamedClass& named : kNamedClasses) {
    if (!regex->starts_with(named.text)) continue;
    regex->remove_prefix(named.text.size());
    return named.bit;
  }
  return 0;
}

// A literal character inside brackets, escaped or not.
std::optional<char32_t> TakeCharacter(std::string_view* regex) {
  if (regex->empty()) return std::nullopt;
  const Utf8Char c = CharAt(*regex, 0);
  regex->remove_prefix(c.size);
  if (c.code_point != '\\') {
    // A bracket would open a nested set, and && would cut two sets.
    const bool has_meaning =
        c.code_point == '[' || (c.code_point == '&' && regex->starts_with("&"));
    return has_meaning ? std::nullopt : std::optional(c.code_point);
  }
  if (regex->empty()) return std::nullopt;
  const char escaped = regex->front();
  regex->remove_prefix(1);
  if (escaped == 'r') return U'\r';
  if (escaped == 'n') return U'\n';
  if (escaped == 't') return U'\t';
  const auto byte = static_cast<uint8_t>(escaped);
  const bool punctuation =
      byte < 0x80 && (CharClasses::Get()(byte) & (kLetter | kNumber | kSpace)) == 0;
  return punctuation ? std::optional(char32_t{byte}) : std::nullopt;
}

}  // namespace

CharSet CharSet::OfClasses(uint8_t classes) {
  CharSet set;
  set.classes_ = classes;
  set.FillAscii();
  return set;
}

std::optional<CharSet> CharSet::Parse(std::string_view* regex) {
  if (const uint8_t bit = TakeClass(regex)) return OfClasses(bit);
  if (!regex->starts_with("[")) return std::nullopt;
  regex->remove_prefix(1);
  CharSet set;
  set.negated_ = regex->starts_with("^");
  if (set.negated_) regex->remove_prefix(1);
  // A bracket that closes at once would be a literal one.
  if (regex->starts_with("]")) return std::nullopt;
  while (!regex->starts_with("]")) {
    if (!set.ParseItem(regex)) return std::nullopt;
  }
  regex->remove_prefix(1);
  set.MergeRanges();
  set.FillAscii();
  return set;
}

bool CharSet::ParseItem(std::string_view* regex) {
  if (const uint8_t bit = TakeClass(regex)) {
    classes_ |= bit;
    return true;
  }
  const std::optional<char32_t> first = TakeCharacter(regex);
  if (!first.has_value()) return false;
  std::optional<char32_t> last = first;
  if (regex->starts_with("-") && !regex->starts_with("-]")) {
    regex->remove_prefix(1);
    last = TakeCharacter(regex);
    if (!last.has_value() || *last < *first) return false;
  }
  ranges_.emplace_back(*first, *last);
  return true;
}

void CharSet::MergeRanges() {
  std::sort(ranges_.begin(), ranges_.end());
  size_t size = 0;
  for (const auto& range : ranges_) {
    if (size > 0 && range.first <= ranges_[size - 1].second) {
      ranges_[size - 1].second = std::max(ranges_[size - 1].second, range.second);
    } else {
      ranges_[size++] = range;
    }
  }
  ranges_.resize(size);
}

bool CharSet::HasRare(char32_t c) const {
  if ((CharClasses::Get()(c) & classes_) != 0) return !negated_;
  const auto behind =
      std::upper_bound(ranges_.begin(), ranges_.end(), c,
                       [](char32_t value, const auto& range) { return value < range.first; });
  const bool inside = behind != ranges_.begin() && c <= (behind - 1)->second;
  return inside != negated_;
}

void CharSet::FillAscii() {
  for (char32_t c = 0; c < kAscii; ++c) ascii_[c] = HasRare(c);
}

}  // namespace structattn
