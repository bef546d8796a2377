// A Unigram model: of all ways to put a word together from tokens, the one whose scores have the
// largest sum. Built from the model section of a tokenizer.json; sums and ties as in the oracle.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_UNIGRAM_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_UNIGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/token_trie.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/word_model.h"

namespace structattn {

class Unigram : public WordModel {
 public:
  // Refuses tokens that are there twice, long ones, scores that are no numbers and an unk_id that
  // is not a token's.
  static absl::StatusOr<std::unique_ptr<Unigram>> Create(const UnigramConfig& config);

  void EncodeWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const override;
  // A score may join any two characters.
  bool MayCutBefore(std::string_view /*symbol*/) const override { return false; }

 private:
  Unigram(const UnigramConfig& config, Vocabulary vocabulary);

  // The last token of the best way to each end of a character; false once `stop` says so.
  bool FindBestTokens(std::string_view word, StopPoll* stop, WordScratch* scratch) const;
  // Where the last token of the way to `end` begins.
  size_t TokenBegin(std::string_view word, size_t end, int32_t token) const;
  // The tokens of a run of unknown characters, the last one first.
  void AppendUnknown(std::string_view word, size_t begin, size_t end,
                     std::vector<BpeSymbol>* reversed) const;

  std::vector<double> scores_;  // By id.
  double unknown_score_;        // Of a character that is no token.
  int32_t unk_id_;
  size_t ring_ = 1;  // A power of two that is longer than every token.
  std::optional<std::array<int32_t, 256>> fallback_ids_;  // <0xNN>; -1: none.
  TokenTrie trie_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_UNIGRAM_H_
