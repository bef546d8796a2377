// UTF-8 characters one at a time. Reads stay inside the text even when it is not valid UTF-8; the
// code point is then U+FFFD. Never allocates but to append.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_UTF8_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace structattn {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

struct Utf8Char {
  char32_t code_point;
  size_t size;  // Bytes, 1..4.
};

// The character that begins at `position` < text.size().
inline Utf8Char CharAt(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC0 || position + size > text.size()) return {kReplacementCharacter, 1};
  char32_t code_point = lead & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) code_point = code_point << 6 | (byte(i) & 0x3F);
  return {code_point < 0x110000 ? code_point : kReplacementCharacter, size};
}

// The character that ends at `position` > 0.
inline Utf8Char CharBefore(std::string_view text, size_t position) {
  size_t begin = position - 1;
  while (begin > 0 && position - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return CharAt(text.substr(0, position), begin);
}

void AppendUtf8(char32_t code_point, std::string* out);

// How `bytes` begins, by the rules of the Unicode standard, table 3-7.
struct Utf8Prefix {
  enum Kind { kCharacter, kUnfinished, kInvalid } kind;
  size_t size;  // kInvalid: the longest part that could have begun a character, at least 1.
};
Utf8Prefix ReadUtf8Prefix(std::string_view bytes);

bool IsValidUtf8(std::string_view bytes);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_UTF8_H_
