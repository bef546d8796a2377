// Cuts normalised text into the words that BPE sees, as the known split patterns do it, with hand-
// written scanners in place of a regex engine: linear in the text whatever it holds. Never changes
// the text.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// The regular expressions that the scanners implement, or kNone for any other.
WordPattern FindWordPattern(std::string_view regex);

// Appends the end of each word of `text`; the last one is text.size(). Words are never empty.
class PreTokenizer {
 public:
  PreTokenizer(DigitSplit digits, WordPattern pattern) : digits_(digits), pattern_(pattern) {}

  void Split(std::string_view text, std::vector<size_t>* ends) const;

 private:
  void SplitPattern(std::string_view text, size_t begin, size_t end,
                    std::vector<size_t>* ends) const;

  DigitSplit digits_;
  WordPattern pattern_;
};

// Cuts before every `symbol`, or only where another character is before it.
enum class SymbolCut { kBeforeEach, kBeforeRun };
void SplitBeforeSymbol(std::string_view text, std::string_view symbol, SymbolCut cut,
                       std::vector<size_t>* ends);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
