// The model section of a tokenizer.json: a vocabulary, and a word's way to tokens of it. Immutable
// and thread-safe: what a call needs lives in the caller's WordScratch.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_MODEL_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "server/model/tokenizer/bpe_merge.h"
#include "server/model/tokenizer/stop_poll.h"
#include "server/model/tokenizer/vocabulary.h"

namespace structattn {

// A part of a long word that BPE merges on its own: see Bpe::EncodeLongWord.
struct BpeWindow {
  size_t begin;           // In the word.
  size_t symbols;         // Of the word before it.
  int32_t first_id = -1;  // What the window before made of its first bytes.
  size_t first_size = 0;
};

// The result of EncodeWord, and memory that each kind of model keeps from one word to the next.
struct WordScratch {
  std::vector<BpeSymbol> symbols;  // The result.

  std::vector<BpeSymbol> window;
  std::vector<BpeWindow> windows;
  BpeMerger merger;

  std::vector<int32_t> best_tokens;
  std::vector<double> best_scores;
};

class WordModel {
 public:
  explicit WordModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~WordModel() = default;

  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Tokens of `word` (under 2^31 bytes) into scratch->symbols; any tokens once `stop` says so.
  virtual void EncodeWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const = 0;

  // True if encoding words cut before runs of `symbol` is the same as encoding the whole.
  virtual bool MayCutBefore(std::string_view symbol) const = 0;

 private:
  Vocabulary vocabulary_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_WORD_MODEL_H_
