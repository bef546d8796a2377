// The alternatives of the split patterns, tried in the order of the pattern. Looks at most one run
// of characters ahead.
#include "server/model/tokenizer/word_scanner.h"

namespace structattn {
namespace {

constexpr std::string_view kLongS = "\xC5\xBF";  // U+017F, folds to s.

char FoldAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// Of "s", "t", "m", "d", "re", "ve", "ll" the size of the one that `next` begins with, or 0.
size_t SuffixSize(char first, char second) {
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 1;
    case 'r':
    case 'v':
      return second == 'e' ? 2 : 0;
    case 'l':
      return second == 'l' ? 2 : 0;
    default:
      return 0;
  }
}

}  // namespace

size_t WordScanner::ContractionSize(size_t begin) const {
  if (begin + 1 >= text_.size()) return 0;
  const char second = begin + 2 < text_.size() ? text_[begin + 2] : '\0';
  const size_t suffix = SuffixSize(text_[begin + 1], second);
  return suffix == 0 ? 0 : 1 + suffix;
}

size_t WordScanner::FoldedContractionSize(size_t begin) const {
  if (begin + 1 >= text_.size()) return 0;
  if (text_.substr(begin + 1, kLongS.size()) == kLongS) return 1 + kLongS.size();
  const char second = begin + 2 < text_.size() ? FoldAscii(text_[begin + 2]) : '\0';
  const size_t suffix = SuffixSize(FoldAscii(text_[begin + 1]), second);
  return suffix == 0 ? 0 : 1 + suffix;
}

size_t WordScanner::SpacesEnd(size_t begin) const {
  size_t position = begin;
  size_t last = begin;
  while (position < text_.size()) {
    const ClassifiedChar c = At(position);
    if (c.kind != kSpace) return last > begin ? last : position;
    last = position;
    position += c.size;
  }
  return position;
}

size_t WordScanner::Gpt2WordEnd(size_t begin) const {
  if (text_[begin] == '\'') {
    if (const size_t size = ContractionSize(begin)) return begin + size;
  }
  ClassifiedChar c = At(begin);
  size_t position = begin;
  if (text_[begin] == ' ' && begin + 1 < text_.size()) {
    const ClassifiedChar next = At(begin + 1);
    if (next.kind != kSpace) {
      c = next;
      position = begin + 1;
    }
  }
  if (c.kind == kSpace) return SpacesEnd(begin);
  return RunEnd(position + c.size, c.kind);
}

size_t WordScanner::Llama3WordEnd(size_t begin, int max_digits) const {
  if (text_[begin] == '\'') {
    if (const size_t size = FoldedContractionSize(begin)) return begin + size;
  }
  const ClassifiedChar c = At(begin);
  const size_t second = begin + c.size;
  if (c.kind == kLetter) return RunEnd(second, kLetter);
  if (c.kind == kNumber) {
    size_t position = second;
    for (int digits = 1; digits < max_digits && position < text_.size(); ++digits) {
      const ClassifiedChar next = At(position);
      if (next.kind != kNumber) break;
      position += next.size;
    }
    return position;
  }
  const bool has_second = second < text_.size();
  const ClassifiedChar next = has_second ? At(second) : ClassifiedChar{kSpace, 0};
  if (next.kind == kLetter && !IsNewline(text_[begin])) return RunEnd(second, kLetter);
  if (c.kind == 0) return NewlinesEnd(RunEnd(second, 0));
  if (text_[begin] == ' ' && next.kind == 0) return NewlinesEnd(RunEnd(second, 0));
  // White space: up to the last line break of the run, if there is one.
  size_t last_newline_end = 0;
  for (size_t position = begin; position < text_.size();) {
    const ClassifiedChar space = At(position);
    if (space.kind != kSpace) break;
    if (IsNewline(text_[position])) last_newline_end = position + 1;
    position += space.size;
  }
  return last_newline_end != 0 ? last_newline_end : SpacesEnd(begin);
}

}  // namespace structattn
