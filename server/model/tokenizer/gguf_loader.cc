// Tokenizer::FromGguf: a GGUF vocabulary into the TokenizerConfig of the tokenizer.json that its
// family publishes. Never guesses a family: a tokenizer.ggml.model or tokenizer.ggml.pre that it
// does not know is refused by name.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/gguf_families.h"
#include "server/model/tokenizer/sentencepiece_config.h"
#include "server/model/tokenizer/tokenizer_config.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

absl::Status Refuse(const std::string& key, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", key, ": ", message));
}

Pieces PiecesOf(const GgufVocabulary& vocabulary) {
  return {.texts = vocabulary.tokens, .scores = vocabulary.scores, .types = vocabulary.token_types};
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
    if (type < kNormalPiece || type > kBytePiece) {
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
  AddPieces(PiecesOf(vocabulary), &config);
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

absl::StatusOr<TokenizerConfig> ScoredConfig(const GgufVocabulary& vocabulary) {
  if (vocabulary.scores.size() != vocabulary.tokens.size()) {
    return Refuse("scores", absl::StrFormat("%d scores for %d tokens", vocabulary.scores.size(),
                                            vocabulary.tokens.size()));
  }
  if (std::any_of(vocabulary.scores.begin(), vocabulary.scores.end(),
                  [](float score) { return std::isnan(score); })) {
    return Refuse("scores", "a score is not a number");
  }
  absl::StatusOr<TokenizerConfig> config = SentencePieceConfig(
      PiecesOf(vocabulary), {.prefix = vocabulary.add_space_prefix.value_or(true)});
  if (!config.ok()) return Refuse("tokens", std::string(config.status().message()));
  STRUCTATTN_RETURN_IF_ERROR(AddSpecialIds(vocabulary, /*adds_bos=*/true, &*config));
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
    STRUCTATTN_ASSIGN_OR_RETURN(TokenizerConfig config, ScoredConfig(vocabulary));
    return BuildTokenizer(std::move(config));
  }
  return Refuse("model", absl::StrCat("\"", vocabulary.model,
                                      "\" is not supported: supported are gpt2, llama"));
}

}  // namespace structattn
