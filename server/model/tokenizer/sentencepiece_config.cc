// Merges that scores stand for, and the components around them. Reads no file.
#include "server/model/tokenizer/sentencepiece_config.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

// A longer piece is an attack: finding its merges is quadratic in its length.
constexpr size_t kMaxPieceBytes = 1024;

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
absl::Status AddScoredMerges(const Pieces& pieces, BpeConfig* config) {
  absl::flat_hash_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < pieces.texts.size(); ++id) ids.emplace(pieces.texts[id], id);
  std::vector<ScoredMerge> merges;
  for (size_t id = 0; id < pieces.texts.size(); ++id) {
    const std::string_view piece = pieces.texts[id];
    const PieceType type = pieces.TypeOf(id);
    if (type != kNormalPiece && type != kUserDefinedPiece) continue;
    if (piece.size() > kMaxPieceBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token %d has %d bytes, more than %d", id, piece.size(), kMaxPieceBytes));
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
          {pieces.scores[id], CountCharacters(left), CountCharacters(right), left, right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const ScoredMerge& a, const ScoredMerge& b) {
    return std::tie(a.score, a.left_characters, a.right_characters) >
           std::tie(b.score, b.left_characters, b.right_characters);
  });
  for (const ScoredMerge& merge : merges) config->merges.emplace_back(merge.left, merge.right);
  return absl::OkStatus();
}

UnigramConfig UnigramOf(const Pieces& pieces) {
  UnigramConfig config;
  for (size_t id = 0; id < pieces.texts.size(); ++id) {
    config.vocabulary.emplace_back(pieces.texts[id], static_cast<int32_t>(id));
    if (pieces.TypeOf(id) == kUnknownPiece) config.unk_id = static_cast<int32_t>(id);
  }
  config.scores.assign(pieces.scores.begin(), pieces.scores.end());
  config.byte_fallback = true;
  return config;
}

}  // namespace

void AddPieces(const Pieces& pieces, TokenizerConfig* config) {
  for (size_t id = 0; id < pieces.texts.size(); ++id) {
    const PieceType type = pieces.TypeOf(id);
    const std::string& text = pieces.texts[id];
    if (type == kUnusedPiece) continue;
    config->bpe.vocabulary.emplace_back(text, static_cast<int32_t>(id));
    if (type == kNormalPiece || type == kBytePiece) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = text;
    token.special = type != kUserDefinedPiece;
    config->added_tokens.push_back(std::move(token));
  }
}

absl::StatusOr<TokenizerConfig> SentencePieceConfig(const Pieces& pieces,
                                                    const SentencePieceSettings& settings) {
  TokenizerConfig config;
  AddPieces(pieces, &config);
  if (settings.unigram) {
    config.unigram = UnigramOf(pieces);
  } else {
    STRUCTATTN_RETURN_IF_ERROR(AddScoredMerges(pieces, &config.bpe));
    for (size_t id = 0; id < pieces.texts.size(); ++id) {
      if (pieces.TypeOf(id) == kUnknownPiece) config.bpe.unk_token = pieces.texts[id];
    }
    config.bpe.fuse_unk = true;
    config.bpe.byte_fallback = true;
  }
  if (settings.legacy) {
    if (settings.prefix) {
      config.normalizer.push_back(
          {.kind = NormalizerStep::kPrepend, .pattern = "", .content = kMetaSymbol});
    }
    config.normalizer.push_back(
        {.kind = NormalizerStep::kReplace, .pattern = " ", .content = kMetaSymbol});
  } else {
    config.pre_tokenizer.metaspace = {
        .replacement = kMetaSymbol,
        .prepend = settings.prefix ? Metaspace::kFirst : Metaspace::kNever,
        .split = false};
  }
  config.decoder = {.kind = DecoderConfig::kSentencePiece,
                    .pattern = kMetaSymbol,
                    .content = " ",
                    .byte_fallback = true,
                    .replaces_bytes = false,
                    .strip_content = " ",
                    .strip_start = settings.prefix ? 1 : 0,
                    .drops_prefix = false};
  return config;
}

}  // namespace structattn
