// The behaviours of a Split: what becomes of matches and of the text between them. Keeps no state
// between pieces.
#include "server/model/tokenizer/pre_tokenizer.h"

#include <cstddef>
#include <optional>

namespace structattn {
namespace {

// Puts matches and the text between them, in the order of the text, together to words.
class Joiner {
 public:
  Joiner(SplitBehavior behavior, std::vector<TextSpan>* words)
      : behavior_(behavior), first_(words->size()), words_(words) {}

  void Add(TextSpan part, bool is_match) {
    if (part.begin == part.end) return;
    const bool has_last = words_->size() > first_;
    switch (behavior_) {
      case SplitBehavior::kIsolated:
        words_->push_back(part);
        break;
      case SplitBehavior::kRemoved:
        if (!is_match) words_->push_back(part);
        break;
      case SplitBehavior::kMergedWithPrevious:
        Put(part, /*joins=*/has_last && is_match && !last_is_match_);
        break;
      case SplitBehavior::kMergedWithNext:
        // A match waits for what follows it, unless that is a match, too.
        Put(part, /*joins=*/has_last && !is_match && last_is_match_);
        break;
      case SplitBehavior::kContiguous:
        Put(part, /*joins=*/has_last && is_match == last_is_match_);
        break;
    }
    last_is_match_ = is_match;
  }

 private:
  void Put(TextSpan part, bool joins) {
    if (joins) {
      words_->back().end = part.end;
    } else {
      words_->push_back(part);
    }
  }

  SplitBehavior behavior_;
  size_t first_;  // Word of the piece that is being cut.
  std::vector<TextSpan>* words_;
  bool last_is_match_ = false;
};

void AppendWords(WordPattern pattern, std::string_view text, size_t begin,
                 std::vector<TextSpan>* words) {
  while (begin < text.size()) {
    const size_t end = WordEnd(pattern, text, begin);
    words->push_back({begin, end});
    begin = end;
  }
}

void Cut(const SplitStep& step, std::string_view whole, TextSpan piece,
         std::vector<TextSpan>* words) {
  const std::string_view text = whole.substr(0, piece.end);
  const WordPattern* const pattern = step.pattern.words();
  const bool keeps_words = step.behavior == SplitBehavior::kIsolated ||
                           (step.behavior == SplitBehavior::kRemoved && step.invert);
  if (pattern != nullptr && keeps_words) return AppendWords(*pattern, text, piece.begin, words);
  Joiner joiner(step.behavior, words);
  size_t done = piece.begin;
  while (const std::optional<TextSpan> match = step.pattern.Find(text, done)) {
    joiner.Add({done, match->begin}, step.invert);
    joiner.Add(*match, !step.invert);
    done = match->end;
  }
  joiner.Add({done, piece.end}, step.invert);
}

}  // namespace

void PreTokenizer::Split(std::string_view text, std::vector<TextSpan>* words,
                         std::vector<TextSpan>* pieces) const {
  words->clear();
  if (!text.empty()) words->push_back({0, text.size()});
  for (const SplitStep& step : steps_) {
    pieces->swap(*words);
    words->clear();
    for (const TextSpan piece : *pieces) Cut(step, text, piece, words);
  }
}

void SplitBeforeSymbol(std::string_view text, std::string_view symbol, SymbolCut cut,
                       std::vector<TextSpan>* words) {
  size_t begin = 0;
  size_t run_end = 0;  // End of the symbol found last.
  for (size_t found = text.find(symbol); found != std::string_view::npos;
       found = text.find(symbol, run_end)) {
    if (found > 0 && (cut == SymbolCut::kBeforeEach || found != run_end)) {
      words->push_back({begin, found});
      begin = found;
    }
    run_end = found + symbol.size();
  }
  if (begin < text.size()) words->push_back({begin, text.size()});
}

}  // namespace structattn
