// Viterbi over the characters of a word: forward the best sum at each end, backward the tokens.
#include "server/model/tokenizer/unigram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

// A character that is no token costs this much more than the worst token.
constexpr double kUnknownPenalty = 10.0;

// Each token is looked for at each character, so a text costs its length times that of the longest
// token.
constexpr size_t kMaxTokenBytes = 1024;

// In place of a token's id.
constexpr int32_t kNoToken = -1;
constexpr int32_t kUnknownCharacter = -2;

absl::Status Refuse(const std::string& reason) {
  return absl::InvalidArgumentError("model." + reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Unigram>> Unigram::Create(const UnigramConfig& config) {
  for (const auto& [text, id] : config.vocabulary) {
    if (text.size() > kMaxTokenBytes) {
      return Refuse(
          absl::StrFormat("vocab[%d]: %d bytes, more than %d", id, text.size(), kMaxTokenBytes));
    }
    if (!std::isfinite(config.scores[static_cast<size_t>(id)])) {
      return Refuse(absl::StrFormat("vocab[%d]: its score is no finite number", id));
    }
  }
  STRUCTATTN_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Create(config.vocabulary));
  if (!vocabulary.Has(config.unk_id)) {
    return Refuse(
        absl::StrFormat("unk_id: %d: allowed are 0 to %d", config.unk_id, vocabulary.size() - 1));
  }
  return std::unique_ptr<Unigram>(new Unigram(config, std::move(vocabulary)));
}

Unigram::Unigram(const UnigramConfig& config, Vocabulary vocabulary)
    : WordModel(std::move(vocabulary)),
      scores_(config.scores),
      unknown_score_(*std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty),
      unk_id_(config.unk_id),
      trie_(this->vocabulary().texts()) {
  size_t longest = 4;  // A character.
  for (const std::string& text : this->vocabulary().texts()) {
    longest = std::max(longest, text.size());
  }
  ring_ = std::bit_ceil(longest + 1);
  if (!config.byte_fallback) return;
  fallback_ids_.emplace();
  for (size_t byte = 0; byte < 256; ++byte) {
    (*fallback_ids_)[byte] = this->vocabulary().Find(absl::StrFormat("<0x%02X>", byte));
  }
}

bool Unigram::FindBestTokens(std::string_view word, StopPoll* stop, WordScratch* scratch) const {
  std::vector<int32_t>& tokens = scratch->best_tokens;
  std::vector<double>& scores = scratch->best_scores;  // Of the last ring_ places.
  const size_t mask = ring_ - 1;
  tokens.assign(word.size() + 1, kNoToken);
  scores.resize(std::max(scores.size(), ring_));
  scores[0] = 0.0;
  const auto offer = [&](size_t end, double score, int32_t token) {
    if (tokens[end] != kNoToken && score <= scores[end & mask]) return;
    tokens[end] = token;
    scores[end & mask] = score;
  };
  for (size_t begin = 0; begin < word.size();) {
    const double score = scores[begin & mask];
    const size_t character = CharAt(word, begin).size;
    if (stop->Stopped(character)) return false;
    bool is_token = false;
    trie_.ForEachPrefix(word.substr(begin), [&](size_t size, int32_t id) {
      offer(begin + size, scores_[static_cast<size_t>(id)] + score, id);
      is_token |= size == character;
    });
    if (!is_token) offer(begin + character, unknown_score_ + score, kUnknownCharacter);
    begin += character;
  }
  return true;
}

size_t Unigram::TokenBegin(std::string_view word, size_t end, int32_t token) const {
  return end - (token == kUnknownCharacter ? CharBefore(word, end).size
                                           : vocabulary().Text(token).size());
}

void Unigram::AppendUnknown(std::string_view word, size_t begin, size_t end,
                            std::vector<BpeSymbol>* reversed) const {
  const std::string_view text = word.substr(begin, end - begin);
  const auto append = [reversed](int32_t id, size_t from, size_t to) {
    reversed->push_back({id, static_cast<uint32_t>(from), static_cast<uint32_t>(to)});
  };
  if (const int32_t id = vocabulary().Find(text); id >= 0) return append(id, begin, end);
  const bool falls_back =
      fallback_ids_.has_value() && std::all_of(text.begin(), text.end(), [&](char byte) {
        return (*fallback_ids_)[static_cast<uint8_t>(byte)] >= 0;
      });
  if (!falls_back) return append(unk_id_, begin, end);
  for (size_t i = end; i > begin; --i) {
    append((*fallback_ids_)[static_cast<uint8_t>(word[i - 1])], i - 1, i);
  }
}

void Unigram::EncodeWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const {
  STRUCTATTN_CHECK(word.size() <= INT32_MAX);
  std::vector<BpeSymbol>& symbols = scratch->symbols;
  symbols.clear();
  if (!FindBestTokens(word, stop, scratch)) return;
  const std::vector<int32_t>& tokens = scratch->best_tokens;
  const auto is_unknown = [&](size_t end) {
    return tokens[end] == kUnknownCharacter || tokens[end] == unk_id_;
  };
  for (size_t end = word.size(); end > 0;) {
    size_t begin = TokenBegin(word, end, tokens[end]);
    if (is_unknown(end)) {
      // Neighbouring unknown characters are one token.
      while (begin > 0 && is_unknown(begin)) begin = TokenBegin(word, begin, tokens[begin]);
      AppendUnknown(word, begin, end, &symbols);
    } else {
      symbols.push_back({tokens[end], static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
    end = begin;
  }
  std::reverse(symbols.begin(), symbols.end());
}

}  // namespace structattn
