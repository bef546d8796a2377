// The trie of added tokens and their flags. A text is searched once as it came, and each normalised
// piece once more if any token matches there. Never changes the text.
#include "server/model/tokenizer/added_tokens.h"

#include <algorithm>

#include "server/model/tokenizer/unicode.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

bool HasClass(char32_t c, CharClass bit) { return (CharClasses::Get()(c) & bit) != 0; }

bool EndsWithWord(std::string_view text) {
  return !text.empty() && HasClass(CharBefore(text, text.size()).code_point, kWord);
}

bool StartsWithWord(std::string_view text) {
  return !text.empty() && HasClass(CharAt(text, 0).code_point, kWord);
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view pattern, const AddedToken& token) {
  uint32_t node = 0;
  for (const char c : pattern) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [found, added] = edges_.emplace(edge, static_cast<uint32_t>(token_of_node_.size()));
    if (added) token_of_node_.push_back(-1);
    node = found->second;
  }
  first_bytes_[static_cast<uint8_t>(pattern[0])] = true;
  token_of_node_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text, size_t begin) const {
  Match best;
  uint32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto found = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (found == edges_.end()) break;
    node = found->second;
    if (token_of_node_[node] >= 0) best = {i + 1, token_of_node_[node]};
  }
  return best;
}

bool AddedTokenMatcher::Stretch(std::string_view text, const AddedToken& token, size_t done,
                                TextPart* part) const {
  if (token.single_word &&
      (EndsWithWord(text.substr(0, part->begin)) || StartsWithWord(text.substr(part->end)))) {
    return false;
  }
  if (token.lstrip) {
    size_t begin = part->begin;
    while (begin > done) {
      const Utf8Char c = CharBefore(text, begin);
      if (!HasClass(c.code_point, kWhiteSpace)) break;
      begin -= c.size;
    }
    // The match before may have swallowed more than the place of this one.
    part->begin = std::max(begin, done);
  }
  while (token.rstrip && part->end < text.size()) {
    const Utf8Char c = CharAt(text, part->end);
    if (!HasClass(c.code_point, kWhiteSpace)) break;
    part->end += c.size;
  }
  return true;
}

std::vector<TextPart> AddedTokenMatcher::Split(std::string_view text,
                                               AllowSpecial allow_special) const {
  std::vector<TextPart> parts;
  size_t done = 0;
  for (size_t i = 0; i < text.size() && !tokens_.empty();) {
    if (!first_bytes_[static_cast<uint8_t>(text[i])]) {
      ++i;
      continue;
    }
    const Match match = LongestAt(text, i);
    if (match.token < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match.token)];
    TextPart part{i, match.end, token.id};
    i = match.end;
    if (token.special && !allow_special(part.begin, part.end)) continue;
    if (!Stretch(text, token, done, &part)) continue;
    if (done < part.begin) parts.push_back({done, part.begin, -1});
    if (part.begin < part.end) parts.push_back(part);
    done = part.end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace structattn
