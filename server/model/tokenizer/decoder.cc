// The three decoders: ByteLevel (all bytes, then lossy UTF-8), SentencePiece's sequence of Replace,
// ByteFallback, Fuse and Strip, and Metaspace. A stream holds back bytes only while what follows
// could still change them.
#include "server/model/tokenizer/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/model/tokenizer/byte_alphabet.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

std::string Replaced(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string result;
  while (!pattern.empty()) {
    const size_t found = text.find(pattern);
    if (found == std::string_view::npos) break;
    result.append(text.substr(0, found)).append(content);
    text.remove_prefix(found + pattern.size());
  }
  return result.append(text);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte of a token <0xNN>.
std::optional<char> ByteOfToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  const int high = text[3] == '+' ? 0 : HexDigit(text[3]);  // The oracle's parser takes a sign.
  const int low = HexDigit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

}  // namespace

void TokenDecoder::AddToken(int32_t id, std::string_view text, bool special) {
  const auto index = static_cast<size_t>(id);
  if (index >= entries_.size()) entries_.resize(std::max(index + 1, entries_.size() * 2));
  Entry& entry = entries_[index];
  entry = {.bytes = std::string(text), .known = true, .special = special};
  if (config_.kind == DecoderConfig::kByteLevel) {
    if (std::optional<std::string> bytes = AlphabetToBytes(text)) entry.bytes = *std::move(bytes);
    return;
  }
  // Metaspace treats the first token of a text in its own way: see SentencePieceStream.
  if (config_.kind == DecoderConfig::kMetaspace) return;
  entry.bytes = Replaced(text, config_.pattern, config_.content);
  if (!config_.byte_fallback) return;
  if (const std::optional<char> byte = ByteOfToken(entry.bytes)) {
    entry.bytes.assign(1, *byte);
    entry.is_byte = true;
  }
}

const TokenDecoder::Entry* TokenDecoder::Find(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= entries_.size()) return nullptr;
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return entry.known ? &entry : nullptr;
}

std::string TokenDecoder::Bytes(int32_t id) const {
  const Entry* entry = Find(id);
  return entry == nullptr ? "" : Render(*entry, /*first=*/false);
}

std::string TokenDecoder::Render(const Entry& entry, bool first) const {
  if (config_.kind != DecoderConfig::kMetaspace) return entry.bytes;
  return Replaced(entry.bytes, config_.pattern, first && config_.drops_prefix ? "" : " ");
}

bool TokenDecoder::IsSpecial(int32_t id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->special;
}

// Bytes become characters as soon as they are complete; each longest part of a broken character
// becomes one U+FFFD.
class ByteLevelStream : public Tokenizer::StreamDecoder {
 public:
  explicit ByteLevelStream(const TokenDecoder& decoder) : decoder_(decoder) {}

  std::string Push(int32_t id) override {
    const TokenDecoder::Entry* entry = decoder_.Find(id);
    if (entry == nullptr || entry->special) return "";
    pending_ += entry->bytes;
    std::string piece;
    std::string_view rest = pending_;
    while (!rest.empty()) {
      const Utf8Prefix prefix = ReadUtf8Prefix(rest);
      if (prefix.kind == Utf8Prefix::kUnfinished) break;
      piece +=
          prefix.kind == Utf8Prefix::kCharacter ? rest.substr(0, prefix.size) : kReplacementUtf8;
      rest.remove_prefix(prefix.size);
    }
    pending_.erase(0, pending_.size() - rest.size());
    return piece;
  }

  std::string Finish() override {
    const bool broken = !pending_.empty();
    pending_.clear();
    return std::string(broken ? kReplacementUtf8 : "");
  }

 private:
  const TokenDecoder& decoder_;
  std::string pending_;  // The unfinished character at the end, at most 3 bytes.
};

// A run of byte tokens is one text or, if that is not UTF-8, one U+FFFD per byte: it is held back
// until it ends.
class SentencePieceStream : public Tokenizer::StreamDecoder {
 public:
  explicit SentencePieceStream(const TokenDecoder& decoder)
      : decoder_(decoder), strips_left_(decoder.config_.strip_start) {}

  std::string Push(int32_t id) override {
    const TokenDecoder::Entry* entry = decoder_.Find(id);
    if (entry == nullptr || entry->special) return "";
    const bool first = std::exchange(is_first_, false);
    if (entry->is_byte) {
      bytes_ += entry->bytes;
      return "";
    }
    return Strip(TakeBytes() + decoder_.Render(*entry, first));
  }

  std::string Finish() override { return Strip(TakeBytes()); }

 private:
  std::string TakeBytes() {
    std::string text;
    if (IsValidUtf8(bytes_)) {
      text = bytes_;
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) text += kReplacementUtf8;
    }
    bytes_.clear();
    const DecoderConfig& config = decoder_.config_;
    return config.replaces_bytes ? Replaced(text, config.pattern, config.content) : text;
  }

  // Cuts the front of the whole text, which may come in several pieces.
  std::string Strip(std::string piece) {
    const std::string& content = decoder_.config_.strip_content;
    while (strips_left_ > 0 && !piece.empty()) {
      if (piece.compare(0, content.size(), content) != 0) {
        strips_left_ = 0;
        break;
      }
      piece.erase(0, content.size());
      --strips_left_;
    }
    return piece;
  }

  const TokenDecoder& decoder_;
  std::string bytes_;  // The run of byte tokens at the end.
  bool is_first_ = true;
  int strips_left_;
};

std::unique_ptr<Tokenizer::StreamDecoder> TokenDecoder::NewStream() const {
  if (config_.kind == DecoderConfig::kByteLevel) return std::make_unique<ByteLevelStream>(*this);
  return std::make_unique<SentencePieceStream>(*this);
}

}  // namespace structattn
