// Vocabulary and merges of a BPE model, checked; and a word's way to tokens. Never guesses: an
// inconsistent model is refused with the JSON path of the culprit.
#include "server/model/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/byte_alphabet.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

// The merger's memory for so many symbols fills most of a first-level cache.
constexpr size_t kFirstWindowBytes = 1024;

// Shorter words are merged as quickly as they are looked up.
constexpr size_t kShortestLookUp = 2;

// For short texts; of long ones only the ends count.
uint64_t HashWord(std::string_view word) {
  const auto load = [](const char* from, auto value) -> uint64_t {
    std::memcpy(&value, from, sizeof(value));
    return value;
  };
  const char* begin = word.data();
  const char* end = begin + word.size();
  uint64_t first = 0, last = 0;
  if (word.size() >= 8) {
    first = load(begin, uint64_t{});
    last = load(end - 8, uint64_t{});
  } else if (word.size() >= 4) {
    first = load(begin, uint32_t{});
    last = load(end - 4, uint32_t{});
  } else if (!word.empty()) {
    first = load(begin, uint8_t{}) << 8 | load(begin + word.size() / 2, uint8_t{});
    last = load(end - 1, uint8_t{});
  }
  const uint64_t hash = (first ^ std::rotl(last, 29) ^ word.size()) * 0x9E3779B97F4A7C15u;
  return (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
}

// The end of the character that has a byte before `position`.
size_t CharacterEnd(std::string_view text, size_t position) {
  while (position < text.size() && (static_cast<uint8_t>(text[position]) & 0xC0) == 0x80) {
    ++position;
  }
  return std::min(position, text.size());
}

// The token with which the window after one of `size` bytes begins, or 0 if there is none: followed
// by enough to be right, and right behind the token before it (unknown characters may not be).
size_t NextWindow(const std::vector<BpeSymbol>& tokens, size_t size) {
  for (size_t i = 1; i + 1 < tokens.size(); ++i) {
    if (tokens[i].begin >= size - size / 8 && tokens[i].begin == tokens[i - 1].end) return i;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Bpe>> Bpe::Create(const BpeConfig& config) {
  STRUCTATTN_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Create(config.vocabulary));
  auto bpe = std::unique_ptr<Bpe>(new Bpe(std::move(vocabulary)));
  bpe->byte_level_ = config.byte_level;
  bpe->fuse_unk_ = config.fuse_unk;
  bpe->ignore_merges_ = config.ignore_merges;
  STRUCTATTN_RETURN_IF_ERROR(bpe->SetUnknown(config));
  STRUCTATTN_RETURN_IF_ERROR(bpe->AddMerges(config));
  bpe->SetByteIds(config);
  bpe->SetWholeWords();
  return bpe;
}

absl::Status Bpe::SetUnknown(const BpeConfig& config) {
  if (config.unk_token.has_value()) {
    unk_id_ = vocabulary().Find(*config.unk_token);
    if (unk_id_ < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.unk_token \"%s\" is not in model.vocab", *config.unk_token));
    }
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerges(const BpeConfig& config) {
  merges_.Reserve(config.merges.size());
  const auto unknown = [](size_t rank, const std::string& text) {
    return absl::InvalidArgumentError(
        absl::StrFormat("model.merges[%d]: token \"%s\" is not in model.vocab", rank, text));
  };
  std::string merged;
  for (size_t rank = 0; rank < config.merges.size(); ++rank) {
    const auto& [left, right] = config.merges[rank];
    merged.assign(left).append(right);
    const int32_t left_id = vocabulary().Find(left);
    const int32_t right_id = vocabulary().Find(right);
    const int32_t merged_id = vocabulary().Find(merged);
    if (left_id < 0) return unknown(rank, left);
    if (right_id < 0) return unknown(rank, right);
    if (merged_id < 0) return unknown(rank, merged);
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(absl::StrFormat("model.merges[%d]: an empty token", rank));
    }
    merges_.Set(left_id, right_id, {static_cast<uint32_t>(rank), merged_id});
  }
  return absl::OkStatus();
}

void Bpe::SetByteIds(const BpeConfig& config) {
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<uint8_t>(byte);
    if (byte_level_) {
      byte_ids_[byte] = vocabulary().Find(ByteToAlphabet(value));
    } else {
      byte_ids_[byte] =
          byte < 0x80 ? vocabulary().Find(std::string(1, static_cast<char>(value))) : -1;
    }
  }
  if (!config.byte_fallback) return;
  fallback_ids_.emplace();
  for (size_t byte = 0; byte < 256; ++byte) {
    (*fallback_ids_)[byte] = vocabulary().Find(absl::StrFormat("<0x%02X>", byte));
  }
}

void Bpe::SetWholeWords() {
  WordScratch scratch;
  word_storage_.reserve(byte_level_ ? vocabulary().token_count() : 0);
  absl::flat_hash_map<std::string_view, int32_t> words;
  words.reserve(vocabulary().token_count());
  for (int32_t id = 0; id < vocabulary().size(); ++id) {
    if (!vocabulary().Has(id)) continue;
    const std::string& text = vocabulary().Text(id);
    std::string_view word = text;
    if (byte_level_) {
      std::optional<std::string> bytes = AlphabetToBytes(text);
      if (!bytes.has_value()) continue;
      word = word_storage_.emplace_back(*std::move(bytes));
    }
    if (word.empty()) continue;
    if (!ignore_merges_) {
      SplitIntoSymbols(word, &scratch.symbols);
      scratch.merger.MergeSymbols(merges_, &scratch.symbols);
      if (scratch.symbols.size() != 1 || scratch.symbols[0].id != id) continue;
    }
    words.emplace(word, id);
    longest_word_ = std::max(longest_word_, word.size());
  }
  words_ = std::move(words);
  word_filter_ = HashFilter(words_.size());
  for (const auto& [word, id] : words_) word_filter_.Add(HashWord(word));
}

void Bpe::EncodeWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const {
  STRUCTATTN_CHECK(word.size() <= INT32_MAX);
  const bool look_up = word.size() > kShortestLookUp || ignore_merges_;
  if (look_up && word.size() <= longest_word_ && word_filter_.MayHave(HashWord(word))) {
    if (const auto found = words_.find(word); found != words_.end()) {
      scratch->symbols.assign(1, {found->second, 0, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  if (word.size() > kFirstWindowBytes) return EncodeLongWord(word, stop, scratch);
  SplitIntoSymbols(word, &scratch->symbols);
  scratch->merger.MergeSymbols(merges_, &scratch->symbols);
}

void Bpe::EncodeLongWord(std::string_view word, StopPoll* stop, WordScratch* scratch) const {
  std::vector<BpeSymbol>& result = scratch->symbols;
  std::vector<BpeSymbol>& tokens = scratch->window;
  std::vector<BpeWindow>& windows = scratch->windows;
  size_t window_size = kFirstWindowBytes;
  result.clear();
  result.reserve(word.size());
  windows.assign(1, {.begin = 0, .symbols = 0});
  while (!windows.empty()) {
    const BpeWindow window = windows.back();
    const size_t end = CharacterEnd(word, window.begin + window_size);
    if (stop->Stopped(end - window.begin)) return;
    SplitIntoSymbols(word.substr(window.begin, end - window.begin), &tokens);
    scratch->merger.MergeSymbols(merges_, &tokens);
    result.resize(window.symbols);
    if (window.begin > 0 &&
        (tokens.empty() || tokens[0].id != window.first_id || tokens[0].end != window.first_size)) {
      windows.pop_back();
      window_size *= 2;
      continue;
    }
    const bool last = end == word.size();
    const size_t next = last ? tokens.size() : NextWindow(tokens, end - window.begin);
    if (next == 0 && !last) {
      window_size *= 2;
      continue;
    }
    const auto offset = static_cast<uint32_t>(window.begin);
    for (const BpeSymbol& token : std::span(tokens).first(next)) {
      result.push_back({token.id, token.begin + offset, token.end + offset});
    }
    if (last) return;
    windows.push_back({.begin = window.begin + tokens[next].begin,
                       .symbols = result.size(),
                       .first_id = tokens[next].id,
                       .first_size = tokens[next].end - tokens[next].begin});
  }
}

// Unknown characters wait until the next known one: they may be joined to one token.
struct Bpe::PendingUnknown {
  bool waits = false;
  BpeSymbol symbol{};

  void Flush(std::vector<BpeSymbol>* symbols) {
    if (waits) symbols->push_back(symbol);
    waits = false;
  }
};

void Bpe::SplitIntoSymbols(std::string_view word, std::vector<BpeSymbol>* symbols) const {
  symbols->clear();
  PendingUnknown unknown;
  for (size_t i = 0; i < word.size();) {
    const size_t size = byte_level_ ? 1 : CharAt(word, i).size;
    const auto begin = static_cast<uint32_t>(i);
    const auto end = static_cast<uint32_t>(i + size);
    const std::string_view character = word.substr(i, size);
    i += size;
    if (const int32_t id = SymbolId(character); id >= 0) {
      unknown.Flush(symbols);
      symbols->push_back({id, begin, end});
      continue;
    }
    // As in the oracle, an unknown that waits stays behind the bytes.
    if (AppendByteFallback(character, begin, symbols) || unk_id_ < 0) continue;
    if (unknown.waits && fuse_unk_) {
      unknown.symbol.end = end;
      continue;
    }
    unknown.Flush(symbols);
    unknown = {true, {unk_id_, begin, end}};
  }
  unknown.Flush(symbols);
}

int32_t Bpe::SymbolId(std::string_view character) const {
  if (character.size() == 1) return byte_ids_[static_cast<uint8_t>(character[0])];
  return vocabulary().Find(character);
}

bool Bpe::AppendByteFallback(std::string_view character, uint32_t begin,
                             std::vector<BpeSymbol>* symbols) const {
  if (!fallback_ids_.has_value()) return false;
  for (const char byte : character) {
    if ((*fallback_ids_)[static_cast<uint8_t>(byte)] < 0) return false;
  }
  for (const char byte : character) {
    symbols->push_back({(*fallback_ids_)[static_cast<uint8_t>(byte)], begin, begin + 1});
    ++begin;
  }
  return true;
}

bool Bpe::MayCutBefore(std::string_view symbol) const {
  if (byte_level_ || ignore_merges_ || vocabulary().Find(symbol) < 0) return false;
  const std::vector<std::string>& tokens = vocabulary().texts();
  return std::none_of(tokens.begin(), tokens.end(), [symbol](std::string_view token) {
    size_t expected = 0;  // Where the token's leading run of symbols goes on.
    for (size_t found = token.find(symbol); found != std::string_view::npos;
         found = token.find(symbol, found + symbol.size())) {
      if (found != expected) return true;
      expected = found + symbol.size();
    }
    return false;
  });
}

}  // namespace structattn
