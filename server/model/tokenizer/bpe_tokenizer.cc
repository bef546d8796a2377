// The way of a text through the tokenizer, in the oracle's order: added tokens of the raw text,
// normaliser, added tokens of the normalised text, pre-tokeniser, model; every token then goes to
// the segment of most of its bytes. Keeps no state between texts.
#include "server/model/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/bpe.h"
#include "server/model/tokenizer/stop_poll.h"
#include "server/model/tokenizer/unigram.h"

namespace structattn {

// The scratch of one Encode call and its result.
struct BpeTokenizer::Call {
  std::span<const TextSegment> segments;
  StopPoll stop;
  std::vector<Token> tokens;
  WordScratch scratch;
  std::vector<TextSpan> words;
  std::vector<TextSpan> pieces;  // Scratch of the pre-tokeniser.

  // A special token matches only where every owner of its bytes parses special tokens.
  bool AllowsSpecial(OwnerCursor* cursor, size_t begin, size_t end) const {
    bool allowed = true;
    cursor->ForEachRun(begin, end, [&](size_t, int32_t segment) {
      if (segment != kNoSegment) allowed &= segments[static_cast<size_t>(segment)].parse_special;
    });
    return allowed;
  }
};

namespace {

std::string SpaceSymbol(const TokenizerConfig& config) {
  if (config.pre_tokenizer.metaspace.has_value()) {
    return config.pre_tokenizer.metaspace->replacement;
  }
  for (const NormalizerStep& step : config.normalizer) {
    if (step.kind == NormalizerStep::kReplace && step.pattern == " ") return step.content;
  }
  return "";
}

}  // namespace

BpeTokenizer::BpeTokenizer(const TokenizerConfig& config, std::unique_ptr<WordModel> model)
    : normalizer_(config.normalizer),
      pre_tokenizer_(config.pre_tokenizer.splits),
      metaspace_(config.pre_tokenizer.metaspace),
      model_(std::move(model)),
      space_symbol_(SpaceSymbol(config)),
      cut_at_meta_symbol_(model_->MayCutBefore(kMetaSymbol)),
      decoder_(config.decoder),
      special_prefix_(config.special_prefix),
      special_suffix_(config.special_suffix),
      vocabulary_size_(model_->vocabulary().size()),
      plain_vocabulary_size_(model_->vocabulary().size()),
      warnings_(config.warnings) {
  for (int32_t id = 0; id < model_->vocabulary().size(); ++id) {
    if (model_->vocabulary().Has(id)) {
      decoder_.AddToken(id, model_->vocabulary().Text(id), /*special=*/false);
    }
  }
}

absl::Status BpeTokenizer::AddTokens(const std::vector<AddedToken>& tokens) {
  // The oracle numbers the tokens that the vocabulary lacks itself.
  auto next_id = static_cast<int32_t>(model_->vocabulary().token_count());
  absl::flat_hash_map<std::string, int32_t> patterns[2];  // Raw, normalised.
  for (size_t i = 0; i < tokens.size(); ++i) {
    const AddedToken& token = tokens[i];
    const auto refuse = [&](const std::string& reason) {
      return absl::InvalidArgumentError(absl::StrFormat("added_tokens[%d]: \"%s\" (id %d) %s", i,
                                                        token.content, token.id, reason));
    };
    if (token.content.empty()) return refuse("has no content");
    if (token.id < 0 || token.id >= kMaxVocabularySize) {
      return refuse(absl::StrFormat("is outside 0 to %d", kMaxVocabularySize - 1));
    }
    int32_t id = model_->vocabulary().Find(token.content);
    if (id < 0) id = next_id++;
    if (id != token.id) return refuse(absl::StrFormat("gets id %d from the vocabulary", id));
    if (!added_ids_.emplace(token.content, id).second) return refuse("is there twice");

    const std::string pattern =
        token.normalized ? normalizer_.NormalizeString(token.content) : token.content;
    if (pattern.empty() || !patterns[token.normalized].emplace(pattern, id).second) {
      return refuse("cannot be told from another token once normalised");
    }
    (token.normalized ? normalized_matcher_ : raw_matcher_).Add(pattern, token);
    decoder_.AddToken(id, pattern, token.special && pattern == token.content);
    vocabulary_size_ = std::max(vocabulary_size_, id + 1);
  }
  while (plain_vocabulary_size_ > 0) {
    const std::string& last = model_->vocabulary().Text(plain_vocabulary_size_ - 1);
    if (model_->vocabulary().Has(plain_vocabulary_size_ - 1) && !added_ids_.contains(last)) break;
    --plain_vocabulary_size_;
  }
  return absl::OkStatus();
}

int32_t BpeTokenizer::FindToken(std::string_view content) const {
  const auto found = added_ids_.find(std::string(content));
  return found != added_ids_.end() ? found->second : model_->vocabulary().Find(content);
}

absl::StatusOr<std::vector<Token>> BpeTokenizer::Encode(std::span<const TextSegment> segments,
                                                        const std::stop_token& stop) const {
  OwnedText text;
  for (size_t i = 0; i < segments.size(); ++i) {
    text.Append(segments[i].text, static_cast<int32_t>(i));
  }
  Call call{.segments = segments,
            .stop = StopPoll(stop),
            .tokens = {},
            .scratch = {},
            .words = {},
            .pieces = {}};
  call.tokens.reserve(text.text.size() / 4);
  OwnerCursor cursor(text.runs);
  OwnerCursor token_cursor(text.runs);
  const auto allows = [&](size_t begin, size_t end) {
    return call.AllowsSpecial(&cursor, begin, end);
  };
  for (const TextPart& part : raw_matcher_.Split(text.text, allows)) {
    if (call.stop.Stopped(part.end - part.begin)) break;
    if (part.id >= 0) {
      call.tokens.push_back({part.id, token_cursor.MajorityOwner(part.begin, part.end)});
    } else {
      EncodePiece(text, part, &call);
    }
  }
  if (call.stop.Stopped(0)) return absl::CancelledError("tokenizing was stopped");
  return std::move(call.tokens);
}

void BpeTokenizer::EncodePiece(const OwnedText& text, TextPart part, Call* call) const {
  const bool at_start = part.begin == 0;
  const std::string_view view =
      std::string_view(text.text).substr(part.begin, part.end - part.begin);
  if (normalizer_.LeavesUnchanged(view) && normalized_matcher_.empty()) {
    return EncodeNormalized(text, part, at_start, call);
  }
  OwnedText piece;
  OwnerCursor cursor(text.runs);
  AppendRange(text, part.begin, part.end, &cursor, &piece);
  piece = normalizer_.Normalize(std::move(piece));
  OwnerCursor match_cursor(piece.runs);
  OwnerCursor token_cursor(piece, space_symbol_);
  const auto allows = [&](size_t begin, size_t end) {
    return call->AllowsSpecial(&match_cursor, begin, end);
  };
  for (const TextPart& inner : normalized_matcher_.Split(piece.text, allows)) {
    if (inner.id >= 0) {
      call->tokens.push_back({inner.id, token_cursor.MajorityOwner(inner.begin, inner.end)});
    } else {
      EncodeNormalized(piece, inner, at_start && inner.begin == 0, call);
    }
  }
}

void BpeTokenizer::EncodeNormalized(const OwnedText& text, TextPart part, bool at_start,
                                    Call* call) const {
  if (!metaspace_.has_value()) return EncodeWords(text, part, call);
  const OwnedText spaced = ApplyMetaspace(text, part, at_start);
  EncodeWords(spaced, {0, spaced.text.size(), -1}, call);
}

OwnedText BpeTokenizer::ApplyMetaspace(const OwnedText& text, TextPart part, bool at_start) const {
  OwnedText piece;
  OwnerCursor cursor(text.runs);
  AppendRange(text, part.begin, part.end, &cursor, &piece);
  piece = ReplaceAll(piece, " ", metaspace_->replacement);
  const bool prepends = metaspace_->prepend == Metaspace::kAlways ||
                        (metaspace_->prepend == Metaspace::kFirst && at_start);
  if (prepends && !piece.text.starts_with(metaspace_->replacement)) {
    piece = PrependText(piece, metaspace_->replacement);
  }
  return piece;
}

void BpeTokenizer::EncodeWords(const OwnedText& text, TextPart part, Call* call) const {
  const std::string_view view =
      std::string_view(text.text).substr(part.begin, part.end - part.begin);
  call->words.clear();
  if (metaspace_.has_value() && metaspace_->split) {
    SplitBeforeSymbol(view, metaspace_->replacement, SymbolCut::kBeforeEach, &call->words);
  } else if (pre_tokenizer_.empty() && cut_at_meta_symbol_) {
    SplitBeforeSymbol(view, kMetaSymbol, SymbolCut::kBeforeRun, &call->words);
  } else {
    pre_tokenizer_.Split(view, &call->words, &call->pieces);
  }
  OwnerCursor cursor(text, space_symbol_);
  for (const TextSpan word : call->words) {
    if (call->stop.Stopped(word.end - word.begin)) return;
    model_->EncodeWord(view.substr(word.begin, word.end - word.begin), &call->stop, &call->scratch);
    const size_t offset = part.begin + word.begin;
    for (const BpeSymbol& symbol : call->scratch.symbols) {
      call->tokens.push_back(
          {symbol.id, cursor.MajorityOwner(offset + symbol.begin, offset + symbol.end)});
    }
  }
}

namespace {

absl::StatusOr<std::unique_ptr<WordModel>> MakeModel(TokenizerConfig* config) {
  if (config->unigram.has_value()) return Unigram::Create(*config->unigram);
  config->bpe.byte_level = config->pre_tokenizer.byte_level;
  return Bpe::Create(config->bpe);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> BuildTokenizer(TokenizerConfig config) {
  STRUCTATTN_ASSIGN_OR_RETURN(std::unique_ptr<WordModel> model, MakeModel(&config));
  auto tokenizer = std::make_unique<BpeTokenizer>(config, std::move(model));
  if (absl::Status status = tokenizer->AddTokens(config.added_tokens); !status.ok()) return status;
  return tokenizer;
}

}  // namespace structattn
