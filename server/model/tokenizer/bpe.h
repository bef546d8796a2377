// Byte pair encoding of one word: its symbols are merged in the order of the merges' ranks. Built
// from the model section of a tokenizer.json. Immutable and thread-safe: what a call needs lives in
// the caller's BpeScratch. Knows nothing of what makes a word.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/bpe_merge.h"
#include "server/model/tokenizer/hash_filter.h"
#include "server/model/tokenizer/merge_table.h"
#include "server/model/tokenizer/stop_poll.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// A part of a long word that is merged on its own: see Bpe::EncodeLongWord.
struct BpeWindow {
  size_t begin;           // In the word.
  size_t symbols;         // Of the word before it.
  int32_t first_id = -1;  // What the window before made of its first bytes.
  size_t first_size = 0;
};

struct BpeScratch {
  std::vector<BpeSymbol> symbols;  // The result of EncodeWord.
  std::vector<BpeSymbol> window;
  std::vector<BpeWindow> windows;
  BpeMerger merger;
};

class Bpe {
 public:
  // Refuses ids that are negative, too large or given twice, and merges of unknown tokens.
  static absl::StatusOr<std::unique_ptr<Bpe>> Create(const BpeConfig& config);

  // Tokens of `word` (under 2^31 bytes) into scratch->symbols; any tokens once `stop` says so.
  void EncodeWord(std::string_view word, StopPoll* stop, BpeScratch* scratch) const;

  // True if encoding words cut before runs of `symbol` is the same as encoding the whole.
  bool MayCutBefore(std::string_view symbol) const;

  // Token by id as written in the vocabulary, empty where there is none.
  const std::string& TokenText(int32_t id) const;
  bool HasToken(int32_t id) const;
  // -1 for an unknown one.
  int32_t FindToken(std::string_view text) const;
  // One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  size_t token_count() const { return ids_.size(); }

 private:
  struct PendingUnknown;

  Bpe() = default;
  absl::Status AddVocabulary(const BpeConfig& config);
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
  void EncodeLongWord(std::string_view word, StopPoll* stop, BpeScratch* scratch) const;
  void SplitIntoSymbols(std::string_view word, std::vector<BpeSymbol>* symbols) const;
  int32_t SymbolId(std::string_view character) const;
  bool AppendByteFallback(std::string_view character, uint32_t begin,
                          std::vector<BpeSymbol>* symbols) const;

  bool byte_level_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  int32_t unk_id_ = -1;
  size_t longest_word_ = 0;
  HashFilter word_filter_{0};  // Of the keys of words_.
  std::vector<std::string> tokens_;
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // Views into tokens_.
  std::array<int32_t, 256> byte_ids_{};  // Byte level: the byte; else ASCII. -1: none.
  std::optional<std::array<int32_t, 256>> fallback_ids_;  // <0xNN>; -1: none.
  MergeTable merges_;
  std::vector<std::string> word_storage_;  // Byte level: the bytes that words_ looks into.
  absl::flat_hash_map<std::string_view, int32_t> words_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_H_
