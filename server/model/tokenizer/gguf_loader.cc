// Tokenizer::FromGguf: a GGUF vocabulary into the TokenizerConfig of the tokenizer.json that its
// family publishes. Never guesses a family: a tokenizer.ggml.model or tokenizer.ggml.pre that it
// does not know is refused by name.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/gguf_families.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

enum TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// A longer SentencePiece token is an attack: finding its merges is quadratic in its length.
constexpr size_t kMaxPieceBytes = 1024;

absl::Status Refuse(const std::string& key, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", key, ": ", message));
}

TokenType TypeOf(const GgufVocabulary& vocabulary, size_t id) {
  if (vocabulary.token_types.empty()) return kNormal;
  return static_cast<TokenType>(vocabulary.token_types[id]);
}

absl::Status CheckSizes(const GgufVocabulary& vocabulary) {
  const size_t count = vocabulary.tokens.size();
  if (count == 0 || count > static_cast<size_t>(kMaxVocabularySize)) {
    return Refuse("tokens",
                  absl::StrFormat("%d tokens: allowed are 1 to %d", count, kMaxVocabularySize));
  }
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != count) {
    return Refuse("token_type",
                  absl::StrFormat("%d types for %d tokens", vocabulary.token_types.size(), count));
  }
  for (const int32_t type : vocabulary.token_types) {
    if (type < kNormal || type > kByte) {
      return Refuse("token_type", absl::StrFormat("type %d: allowed are 1 to 6", type));
    }
  }
  for (size_t id = 0; id < count; ++id) {
    if (!IsValidUtf8(vocabulary.tokens[id])) {
      return Refuse("tokens", absl::StrFormat("token %d is not UTF-8", id));
    }
  }
  return absl::OkStatus();
}

void AddTokens(const GgufVocabulary& vocabulary, TokenizerConfig* config) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenType type = TypeOf(vocabulary, id);
    const std::string& text = vocabulary.tokens[id];
    if (type == kUnused) continue;
    config->bpe.vocabulary.emplace_back(text, static_cast<int32_t>(id));
    if (type == kNormal || type == kByte) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = text;
    token.special = type != kUserDefined;
    config->added_tokens.push_back(std::move(token));
  }
}

absl::Status AddSpecialIds(const GgufVocabulary& vocabulary, bool adds_bos,
                           TokenizerConfig* config) {
  const auto add = [&](const std::string& key, std::optional<int32_t> id,
                       std::vector<int32_t>* ids) -> absl::Status {
    const auto count = static_cast<int32_t>(vocabulary.tokens.size());
    if (!id.has_value() || *id < 0 || *id >= count) {
      return Refuse(key, absl::StrFormat("%s: a token id from 0 to %d is needed",
                                         id.has_value() ? absl::StrCat(*id) : "absent", count - 1));
    }
    ids->push_back(*id);
    return absl::OkStatus();
  };
  if (vocabulary.add_bos_token.value_or(adds_bos)) {
    STRUCTATTN_RETURN_IF_ERROR(
        add("bos_token_id", vocabulary.bos_token_id, &config->special_prefix));
  }
  if (vocabulary.add_eos_token.value_or(false)) {
    STRUCTATTN_RETURN_IF_ERROR(
        add("eos_token_id", vocabulary.eos_token_id, &config->special_suffix));
  }
  return absl::OkStatus();
}

absl::Status AddMerges(const GgufVocabulary& vocabulary, BpeConfig* config) {
  config->merges.reserve(vocabulary.merges.size());
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string& merge = vocabulary.merges[i];
    const size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos) {
      return Refuse("merges",
                    absl::StrFormat("merge %d, \"%s\": two tokens and one space needed", i, merge));
    }
    config->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerConfig> ByteLevelConfig(const GgufVocabulary& vocabulary) {
  TokenizerConfig config;
  AddTokens(vocabulary, &config);
  STRUCTATTN_RETURN_IF_ERROR(AddMerges(vocabulary, &config.bpe));
  config.pre_tokenizer.byte_level = true;
  config.decoder.kind = DecoderConfig::kByteLevel;
  STRUCTATTN_ASSIGN_OR_RETURN(GgufFamily family, FindGgufFamily(vocabulary.pre));
  config.pre_tokenizer.splits = std::move(family.splits);
  config.bpe.ignore_merges = family.ignore_merges;
  if (family.nfc) {
    config.normalizer.push_back({.kind = NormalizerStep::kNfc, .pattern = "", .content = ""});
  }
  for (AddedToken& token : config.added_tokens) {
    token.special &= std::find(family.plain_tokens.begin(), family.plain_tokens.end(),
                               token.content) == family.plain_tokens.end();
  }
  STRUCTATTN_RETURN_IF_ERROR(AddSpecialIds(vocabulary, family.adds_bos, &config));
  return config;
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// One way to put a piece together from two others.
struct ScoredMerge {
  float score;
  size_t left_characters;
  size_t right_characters;
  std::string_view left;
  std::string_view right;
};

// SentencePiece joins the pair whose piece has the best score. As the published tokenizer.json
// files were made: best score first, then the longer left part, then the longer right part.
absl::Status AddScoredMerges(const GgufVocabulary& vocabulary, BpeConfig* config) {
  absl::flat_hash_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids.emplace(vocabulary.tokens[id], id);
  std::vector<ScoredMerge> merges;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string_view piece = vocabulary.tokens[id];
    if (TypeOf(vocabulary, id) != kNormal) continue;
    if (piece.size() > kMaxPieceBytes) {
      return Refuse("tokens", absl::StrFormat("token %d has %d bytes, more than %d", id,
                                              piece.size(), kMaxPieceBytes));
    }
    std::vector<std::tuple<size_t, size_t, size_t>> cuts;  // Left id, right id, bytes of left.
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = ids.find(piece.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(piece.substr(cut));
      if (right != ids.end()) cuts.emplace_back(left->second, right->second, cut);
    }
    std::sort(cuts.begin(), cuts.end());
    for (const auto& [left_id, right_id, cut] : cuts) {
      const std::string_view left = piece.substr(0, cut);
      const std::string_view right = piece.substr(cut);
      merges.push_back(
          {vocabulary.scores[id], CountCharacters(left), CountCharacters(right), left, right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const ScoredMerge& a, const ScoredMerge& b) {
    return std::tie(a.score, a.left_characters, a.right_characters) >
           std::tie(b.score, b.left_characters, b.right_characters);
  });
  for (const ScoredMerge& merge : merges) config->merges.emplace_back(merge.left, merge.right);
  return absl::OkStatus();
}

absl::StatusOr<TokenizerConfig> SentencePieceConfig(const GgufVocabulary& vocabulary) {
  if (vocabulary.scores.size() != vocabulary.tokens.size()) {
    return Refuse("scores", absl::StrFormat("%d scores for %d tokens", vocabulary.scores.size(),
                                            vocabulary.tokens.size()));
  }
  if (std::any_of(vocabulary.scores.begin(), vocabulary.scores.end(),
                  [](float score) { return std::isnan(score); })) {
    return Refuse("scores", "a score is not a number");
  }
  TokenizerConfig config;
  AddTokens(vocabulary, &config);
  STRUCTATTN_RETURN_IF_ERROR(AddScoredMerges(vocabulary, &config.bpe));
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (TypeOf(vocabulary, id) == kUnknown) config.bpe.unk_token = vocabulary.tokens[id];
  }
  config.bpe.fuse_unk = true;
  config.bpe.byte_fallback = true;
  const bool adds_prefix = vocabulary.add_space_prefix.value_or(true);
  if (adds_prefix) {
    config.normalizer.push_back(
        {.kind = NormalizerStep::kPrepend, .pattern = "", .content = kMetaSymbol});
  }
  config.normalizer.push_back(
      {.kind = NormalizerStep::kReplace, .pattern = " ", .content = kMetaSymbol});
  config.decoder = {.kind = DecoderConfig::kSentencePiece,
                    .pattern = kMetaSymbol,
                    .content = " ",
                    .byte_fallback = true,
                    .strip_content = " ",
                    .strip_start = adds_prefix ? 1 : 0,
                    .drops_prefix = false};
  STRUCTATTN_RETURN_IF_ERROR(AddSpecialIds(vocabulary, /*adds_bos=*/true, &config));
  return config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufVocabulary& vocabulary) {
  STRUCTATTN_RETURN_IF_ERROR(CheckSizes(vocabulary));
  if (vocabulary.model == "gpt2") {
    STRUCTATTN_ASSIGN_OR_RETURN(TokenizerConfig config, ByteLevelConfig(vocabulary));
    return BuildTokenizer(std::move(config));
  }
  if (vocabulary.model == "llama") {
    STRUCTATTN_ASSIGN_OR_RETURN(TokenizerConfig config, SentencePieceConfig(vocabulary));
    return BuildTokenizer(std::move(config));
  }
  return Refuse("model", absl::StrCat("\"", vocabulary.model,
                                      "\" is not supported: supported are gpt2, llama"));
}

}  // namespace structattn
