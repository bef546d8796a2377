// Byte pair encoding of one word: its symbols are merged in the order of the merges' ranks. Built
// from the model section of a tokenizer.json. Knows nothing of what makes a word.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/hash_filter.h"
#include "server/model/tokenizer/merge_table.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/word_model.h"

namespace structattn {

class Bpe : public WordModel {
 public:
  // Refuses ids that are negative, too large or given twice, and merges of unknown tokens.
  static absl::StatusOr<std::unique_ptr<Bpe>> Create(const BpeConfig& config);

  void EncodeWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const override;
  bool MayCutBefore(std::string_view symbol) const override;

 private:
  struct PendingUnknown;

  explicit Bpe(Vocabulary vocabulary) : WordModel(std::move(vocabulary)) {}
  absl::Status AddMerges(const BpeConfig& config);
  absl::Status SetUnknown(const BpeConfig& config);
  void SetByteIds(const BpeConfig& config);
  // Finds the words that are one token, so that EncodeWord need not merge them.
  void SetWholeWords();
  // Merges a word in windows that fit the cache. That is exact. No merge crosses a border between
  // two tokens of a result, so what is between two such borders merges as it would alone; and where
  // two tokens are neighbours in one result, no merge crosses the border between them in any text.
  // So a window may begin where a token of the window before begins, if its own first token is the
  // same. If it is not, the window before saw too little of what follows: it is merged again, with
  // all that come after it twice as large.
  void EncodeLongWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const;
  void SplitIntoSymbols(std::string_view word, std::vector<BpeSymbol>* symbols) const;
  int32_t SymbolId(std::string_view character) const;
  bool AppendByteFallback(std::string_view character, uint32_t begin,
                          std::vector<BpeSymbol>* symbols) const;

  bool byte_level_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  int32_t unk_id_ = -1;
  size_t longest_word_ = 0;
  HashFilter word_filter_{0};            // Of the keys of words_.
  std::array<int32_t, 256> byte_ids_{};  // Byte level: the byte; else ASCII. -1: none.
  std::optional<std::array<int32_t, 256>> fallback_ids_;  // <0xNN>; -1: none.
  MergeTable merges_;
  std::vector<std::string> word_storage_;  // Byte level: the bytes that words_ looks into.
  absl::flat_hash_map<std::string_view, int32_t> words_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_
