// Splits a piece of text between added tokens into words. Keeps no state between pieces.
#include "server/model/tokenizer/pre_tokenizer.h"

#include "server/model/tokenizer/unicode.h"
#include "server/model/tokenizer/utf8.h"
#include "server/model/tokenizer/word_scanner.h"

namespace structattn {
namespace {

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr int kLlama3MaxDigits = 3;
constexpr int kQwen2MaxDigits = 1;

}  // namespace

WordPattern FindWordPattern(std::string_view regex) {
  if (regex == kGpt2Regex) return WordPattern::kGpt2;
  if (regex == kLlama3Regex) return WordPattern::kLlama3;
  if (regex == kQwen2Regex) return WordPattern::kQwen2;
  return WordPattern::kNone;
}

void PreTokenizer::SplitPattern(std::string_view text, size_t begin, size_t end,
                                std::vector<size_t>* ends) const {
  // The pattern sees the part alone: its end looks like the end of the text.
  const WordScanner scanner(text.substr(0, end));
  switch (pattern_) {
    case WordPattern::kNone:
      if (begin < end) ends->push_back(end);
      return;
    case WordPattern::kGpt2:
      while (begin < end) ends->push_back(begin = scanner.Gpt2WordEnd(begin));
      return;
    case WordPattern::kLlama3:
      while (begin < end) {
        ends->push_back(begin = scanner.Llama3WordEnd(begin, kLlama3MaxDigits));
      }
      return;
    case WordPattern::kQwen2:
      while (begin < end) {
        ends->push_back(begin = scanner.Llama3WordEnd(begin, kQwen2MaxDigits));
      }
      return;
  }
}

void PreTokenizer::Split(std::string_view text, std::vector<size_t>* ends) const {
  if (digits_ == DigitSplit::kNone) return SplitPattern(text, 0, text.size(), ends);
  const CharClasses& classes = CharClasses::Get();
  const auto is_digit = [&](size_t i) {
    return (classes(CharAt(text, i).code_point) & kNumeric) != 0;
  };
  for (size_t begin = 0; begin < text.size();) {
    const bool digit = is_digit(begin);
    size_t end = begin;
    do {
      end += CharAt(text, end).size;
    } while (end < text.size() && is_digit(end) == digit &&
             !(digit && digits_ == DigitSplit::kIndividual));
    SplitPattern(text, begin, end, ends);
    begin = end;
  }
}

void SplitBeforeSymbol(std::string_view text, std::string_view symbol, SymbolCut cut,
                       std::vector<size_t>* ends) {
  size_t run_end = 0;  // End of the symbol found last.
  for (size_t found = text.find(symbol); found != std::string_view::npos;
       found = text.find(symbol, run_end)) {
    if (found > 0 && (cut == SymbolCut::kBeforeEach || found != run_end)) ends->push_back(found);
    run_end = found + symbol.size();
  }
  if (!text.empty()) ends->push_back(text.size());
}

}  // namespace structattn
