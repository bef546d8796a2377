// One word at a time by the split patterns of GPT-2, Llama-3 and Qwen2. Each scanner is total: at
// every position of a non-empty text it finds a word.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_SCANNER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_SCANNER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/model/tokenizer/unicode.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {

class WordScanner {
 public:
  explicit WordScanner(std::string_view text) : text_(text), classes_(CharClasses::Get()) {}

  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  size_t Gpt2WordEnd(size_t begin) const;

  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}
  // | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  size_t Llama3WordEnd(size_t begin, int max_digits) const;

 private:
  static constexpr uint8_t kKinds = kLetter | kNumber | kSpace;
  struct ClassifiedChar {
    uint8_t kind;  // kLetter, kNumber, kSpace or 0.
    size_t size;
  };

  ClassifiedChar At(size_t position) const {
    const Utf8Char c = CharAt(text_, position);
    return {static_cast<uint8_t>(classes_(c.code_point) & kKinds), c.size};
  }
  // The end of the run of characters of `kind` that begins at `position`.
  size_t RunEnd(size_t position, uint8_t kind) const {
    while (position < text_.size()) {
      const ClassifiedChar c = At(position);
      if (c.kind != kind) break;
      position += c.size;
    }
    return position;
  }
  size_t NewlinesEnd(size_t position) const {
    while (position < text_.size() && IsNewline(text_[position])) ++position;
    return position;
  }
  static bool IsNewline(char c) { return c == '\r' || c == '\n'; }

  // Bytes of the contraction at the apostrophe at `begin`, or 0.
  size_t ContractionSize(size_t begin) const;
  size_t FoldedContractionSize(size_t begin) const;
  // The run of spaces that begins at `begin`, less its last character if a word follows it.
  size_t SpacesEnd(size_t begin) const;

  std::string_view text_;
  const CharClasses& classes_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_SCANNER_H_
