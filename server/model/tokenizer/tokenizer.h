// Text to token ids and back, exactly as the model's tokenizer.json does it. A model has one, which
// all requests share: immutable, thread-safe. Knows nothing of groups: it only says which segment a
// token belongs to.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/gguf_vocabulary.h"

namespace structattn {

// The text of one segment. Special tokens are recognised in it only with parse_special; added
// tokens that the tokenizer does not call special are recognised always.
struct TextSegment {
  std::string_view text;  // Valid UTF-8.
  bool parse_special = false;
};

// The tokenizer's files of a model's folder, as text; an absent one is empty.
struct TokenizerFiles {
  std::string tokenizer_json;      // Where it is absent, `sentencepiece` takes its place.
  std::string tokenizer_config;    // tokenizer_config.json
  std::string added_tokens;        // added_tokens.json
  std::string special_tokens_map;  // special_tokens_map.json
  std::string sentencepiece;       // tokenizer.model
};

struct Token {
  int32_t id;
  int32_t segment;  // Index of the segment that holds most of its bytes; on a tie the earlier one.
};

class Tokenizer {
 public:
  // Refuses, by name, every component that it does not know. Messages name the JSON path.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view json);
  // The tokenizer of a folder, as its files together describe it; messages begin with the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFolder(const TokenizerFiles& files);
  // Behaves like the tokenizer.json that the vocabulary's family publishes.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufVocabulary& vocabulary);

  virtual ~Tokenizer() = default;

  // Encodes the concatenation of `segments` once, without the special prefix and suffix. CANCELLED
  // within milliseconds of a request to stop; no other error.
  virtual absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                                    const std::stop_token& stop) const = 0;
  // The same without a way to stop.
  std::vector<Token> Encode(std::span<const TextSegment> segments) const {
    return *Encode(segments, std::stop_token());
  }

  // What the post-processor puts before and after a single sequence (BOS, EOS); often empty.
  virtual std::span<const int32_t> special_prefix() const = 0;
  virtual std::span<const int32_t> special_suffix() const = 0;

  // One more than the largest id.
  virtual int32_t vocabulary_size() const = 0;
  // The same without added tokens: text that holds none of them stays below it.
  virtual int32_t plain_vocabulary_size() const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // What the token stands for; empty for unknown ids. May be part of a character.
  virtual std::string TokenBytes(int32_t id) const = 0;
  // The id of a token by its literal content ("<|im_end|>"), or -1.
  virtual int32_t FindToken(std::string_view content) const = 0;

  // What of the files is ignored or changed, a sentence each, for the log.
  virtual std::span<const std::string> warnings() const = 0;

  // Decodes token by token. The pieces put end to end equal `Tokenizer.decode(ids)` of PyPI
  // `tokenizers` (special tokens skipped); every piece is whole UTF-8 characters.
  class StreamDecoder {
   public:
    virtual ~StreamDecoder() = default;
    virtual std::string Push(int32_t id) = 0;
    // What is left: bytes of an unfinished character become U+FFFD as in `decode`.
    virtual std::string Finish() = 0;
  };
  virtual std::unique_ptr<StreamDecoder> NewStreamDecoder() const = 0;

  std::string Decode(std::span<const int32_t> ids) const;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_H_
