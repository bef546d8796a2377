// The one implementation of Tokenizer: added tokens, normaliser, pre-tokeniser, model and decoder
// put together. BuildTokenizer makes it and hides it behind tokenizer.h.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/added_tokens.h"
#include "server/model/tokenizer/decoder.h"
#include "server/model/tokenizer/normalizer.h"
#include "server/model/tokenizer/owned_text.h"
#include "server/model/tokenizer/pre_tokenizer.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/word_model.h"

namespace structattn {

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(const TokenizerConfig& config, std::unique_ptr<WordModel> model);

  // Once, after the constructor.
  absl::Status AddTokens(const std::vector<AddedToken>& tokens);

  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token& stop) const override;
  std::span<const int32_t> special_prefix() const override { return special_prefix_; }
  std::span<const int32_t> special_suffix() const override { return special_suffix_; }
  int32_t vocabulary_size() const override { return vocabulary_size_; }
  int32_t plain_vocabulary_size() const override { return plain_vocabulary_size_; }
  bool IsSpecial(int32_t id) const override { return decoder_.IsSpecial(id); }
  std::string TokenBytes(int32_t id) const override { return decoder_.Bytes(id); }
  int32_t FindToken(std::string_view content) const override;
  std::span<const std::string> warnings() const override { return warnings_; }
  std::unique_ptr<StreamDecoder> NewStreamDecoder() const override { return decoder_.NewStream(); }

 private:
  struct Call;  // What one Encode works with.

  // The part [begin, end) of `text`, which holds no added token of the raw text any more.
  void EncodePiece(const OwnedText& text, TextPart part, Call* call) const;
  // Text in its final form but for Metaspace. `at_start`: it begins the whole text.
  void EncodeNormalized(const OwnedText& text, TextPart part, bool at_start, Call* call) const;
  OwnedText ApplyMetaspace(const OwnedText& text, TextPart part, bool at_start) const;
  void EncodeWords(const OwnedText& text, TextPart part, Call* call) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::optional<Metaspace> metaspace_;
  std::unique_ptr<WordModel> model_;
  std::string space_symbol_;  // What text is written with in place of spaces; empty for none.
  bool cut_at_meta_symbol_;   // Text without a split pattern may be cut at U+2581 all the same.
  AddedTokenMatcher raw_matcher_;
  AddedTokenMatcher normalized_matcher_;
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  TokenDecoder decoder_;
  std::vector<int32_t> special_prefix_;
  std::vector<int32_t> special_suffix_;
  int32_t vocabulary_size_ = 0;
  int32_t plain_vocabulary_size_ = 0;
  std::vector<std::string> warnings_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_
