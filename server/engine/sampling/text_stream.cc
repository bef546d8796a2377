// Implements text_stream.h. The rule for stop strings is that of a check after every token: stop at
// the first token whose text completes one, cut before the earliest occurrence so far.
#include "server/engine/sampling/text_stream.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace structattn::engine {
namespace {

std::vector<int32_t> Borders(std::string_view text) {
  std::vector<int32_t> border(text.size() + 1, 0);
  for (size_t n = 1; n < text.size(); ++n) {
    int32_t length = border[n];
    while (length > 0 && text[length] != text[n]) length = border[length];
    border[n + 1] = text[length] == text[n] ? length + 1 : 0;
  }
  return border;
}

std::vector<int32_t> Sorted(std::span<const int32_t> ids) {
  std::vector<int32_t> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

bool Contains(const std::vector<int32_t>& sorted, int32_t id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

}  // namespace

StopStringFilter::StopStringFilter(std::vector<std::string> patterns) {
  for (std::string& text : patterns) {
    STRUCTATTN_CHECK(!text.empty());
    std::vector<int32_t> border = Borders(text);
    patterns_.push_back({std::move(text), std::move(border)});
  }
}

// Bytes of `piece` up to the end of the first occurrence, if there is one.
std::optional<size_t> StopStringFilter::Advance(Pattern* pattern, std::string_view piece) const {
  const std::string& text = pattern->text;
  int32_t matched = pattern->matched;
  for (size_t i = 0; i < piece.size(); ++i) {
    while (matched > 0 && text[matched] != piece[i]) matched = pattern->border[matched];
    if (text[matched] == piece[i]) ++matched;
    if (static_cast<size_t>(matched) == text.size()) return i + 1;
  }
  pattern->matched = matched;
  return std::nullopt;
}

std::string StopStringFilter::Push(std::string_view piece) {
  if (patterns_.empty()) return std::string(piece);
  std::optional<size_t> cut;  // Where the earliest occurrence begins, in held_ + piece.
  int32_t longest = 0;
  for (Pattern& pattern : patterns_) {
    const std::optional<size_t> end = Advance(&pattern, piece);
    if (end.has_value()) {
      const size_t begin = held_.size() + *end - pattern.text.size();
      cut = std::min(cut.value_or(begin), begin);
    }
    longest = std::max(longest, pattern.matched);
  }
  held_ += piece;
  std::string certain;
  if (cut.has_value()) {
    certain = held_.substr(0, *cut);
    held_.clear();
    stopped_ = true;
  } else {
    certain = held_.substr(0, held_.size() - longest);
    held_.erase(0, certain.size());
  }
  return certain;
}

std::string StopStringFilter::Finish() { return std::exchange(held_, {}); }

TextStream::TextStream(const StoppingParams& stopping, std::span<const int32_t> eos_token_ids,
                       std::unique_ptr<Tokenizer::StreamDecoder> decoder)
    : eos_token_ids_(stopping.ignore_eos ? std::vector<int32_t>() : Sorted(eos_token_ids)),
      stop_token_ids_(Sorted(stopping.stop_token_ids)),
      stop_string_ids_(Sorted(stopping.stop_string_ids)),
      decoder_(std::move(decoder)),
      filter_(stopping.stop_strings) {}

TextStream::Piece TextStream::Push(int32_t token_id) {
  if (Contains(eos_token_ids_, token_id)) return {"", FinishReason::kStop};
  if (Contains(stop_token_ids_, token_id)) return {"", FinishReason::kStopToken};
  if (Contains(stop_string_ids_, token_id)) return {"", FinishReason::kStopString};
  Piece piece;
  piece.text = filter_.Push(decoder_->Push(token_id));
  if (filter_.stopped()) piece.finish = FinishReason::kStopString;
  return piece;
}

std::string TextStream::Finish() {
  if (filter_.stopped()) return "";
  std::string text = filter_.Push(decoder_->Finish());
  return filter_.stopped() ? text : text + filter_.Finish();
}

}  // namespace structattn::engine
