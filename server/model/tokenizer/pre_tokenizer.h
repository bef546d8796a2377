// Cuts normalised text into the words that the model sees, by the Split and Digits steps of a
// pre-tokenizer, each on the pieces of the one before it. Never changes the text, but a step may
// leave parts of it out.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <string_view>
#include <utility>
#include <vector>

#include "server/model/tokenizer/split_pattern.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

class PreTokenizer {
 public:
  explicit PreTokenizer(std::vector<SplitStep> steps) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }

  // The words of `text` in order into `words`; never empty ones. A pattern sees the piece that it
  // cuts alone: its end looks like the end of the text. `pieces` is scratch.
  void Split(std::string_view text, std::vector<TextSpan>* words,
             std::vector<TextSpan>* pieces) const;

 private:
  std::vector<SplitStep> steps_;
};

// Cuts before every `symbol`, or only where another character is before it. Appends the words.
enum class SymbolCut { kBeforeEach, kBeforeRun };
void SplitBeforeSymbol(std::string_view text, std::string_view symbol, SymbolCut cut,
                       std::vector<TextSpan>* words);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
