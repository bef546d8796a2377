// A tokenizer as plain data: what json_loader and gguf_loader read and BuildTokenizer builds from.
// Only components that the project implements can be expressed here; the loaders refuse the rest.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_CONFIG_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_CONFIG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/split_pattern.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

// No id may reach this: the largest published vocabularies have 2^18 tokens.
inline constexpr int32_t kMaxVocabularySize = 1 << 22;

inline constexpr char kMetaSymbol[] = "\xE2\x96\x81";  // U+2581, SentencePiece's space.

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;  // Matches in the normalised text, by its normalised content.
  bool lstrip = false;      // Swallows the white space before it.
  bool rstrip = false;      // Swallows the white space after it.
  bool single_word = false;
};

struct NormalizerStep {
  enum Kind { kNfc, kPrepend, kReplace } kind;
  std::string pattern;  // kReplace.
  std::string content;  // kReplace, kPrepend.
};

// What becomes of the matches of a pattern: each a word of its own, left out, part of the word
// before or behind, or joined to one word with the matches that touch it.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  SplitPattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // What lies between the matches counts as matches, and they as the rest.
};

struct Metaspace {
  std::string replacement;
  enum Prepend { kFirst, kNever, kAlways } prepend = kAlways;
  bool split = true;
};

struct PreTokenizerConfig {
  std::vector<SplitStep> splits;
  bool byte_level = false;
  std::optional<Metaspace> metaspace;
};

struct DecoderConfig {
  enum Kind { kByteLevel, kSentencePiece, kMetaspace } kind = kByteLevel;
  // kSentencePiece: replace in each token and, with replaces_bytes, in what byte tokens spell;
  // join, strip. kMetaspace: `pattern` is the replacement.
  std::string pattern;
  std::string content;
  bool byte_fallback = false;
  bool replaces_bytes = false;
  std::string strip_content;
  int strip_start = 0;        // At most so many `strip_content` are cut off the text's front.
  bool drops_prefix = false;  // kMetaspace: the first token loses its `pattern`s.
};

struct BpeConfig {
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // By rank.
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // A word that is a token needs no merges.
  bool byte_level = false;     // Tokens are written in the byte alphabet.
};

struct UnigramConfig {
  std::vector<std::pair<std::string, int32_t>> vocabulary;  // Ids from 0 on without a gap.
  std::vector<double> scores;                               // By id.
  int32_t unk_id = -1;
  bool byte_fallback = false;
};

struct TokenizerConfig {
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  PreTokenizerConfig pre_tokenizer;
  BpeConfig bpe;
  std::optional<UnigramConfig> unigram;  // In its place.
  DecoderConfig decoder;
  std::vector<int32_t> special_prefix;
  std::vector<int32_t> special_suffix;
  std::vector<std::string> warnings;  // What of the files is ignored or changed, for the log.
};

inline const std::vector<std::pair<std::string, int32_t>>& VocabularyOf(
    const TokenizerConfig& config) {
  return config.unigram.has_value() ? config.unigram->vocabulary : config.bpe.vocabulary;
}

// Checks what the parts demand of each other; messages name the JSON path.
absl::StatusOr<std::unique_ptr<Tokenizer>> BuildTokenizer(TokenizerConfig config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_TOKENIZER_CONFIG_H_
