// Runs of owners: appending, seeking and the majority rule. Knows nothing of tokens or Unicode.
#include "server/model/tokenizer/owned_text.h"

#include <algorithm>

namespace structattn {

void OwnedText::Append(std::string_view bytes, int32_t segment) {
  if (bytes.empty()) return;
  text.append(bytes);
  if (!runs.empty() && runs.back().segment == segment) {
    runs.back().end = text.size();
  } else {
    runs.push_back({text.size(), segment});
  }
}

size_t OwnerCursor::FindRun(size_t first, size_t last, size_t position) const {
  const auto begin = runs_.begin();
  const auto found =
      std::upper_bound(begin + static_cast<ptrdiff_t>(first), begin + static_cast<ptrdiff_t>(last),
                       position, [](size_t value, const OwnerRun& run) { return value < run.end; });
  return static_cast<size_t>(found - begin);
}

void OwnerCursor::Seek(size_t position) {
  if (index_ > 0 && runs_[index_ - 1].end > position) index_ = FindRun(0, index_, position);
  if (index_ < runs_.size() && runs_[index_].end <= position) ++index_;
  if (index_ < runs_.size() && runs_[index_].end <= position) {
    index_ = FindRun(index_, runs_.size(), position);
  }
}

int32_t OwnerCursor::OwnerAt(size_t position) {
  Seek(position);
  return index_ < runs_.size() ? runs_[index_].segment : kNoSegment;
}

int32_t OwnerCursor::FirstOwner(size_t begin, size_t end) {
  int32_t first = kNoSegment;
  ForEachRun(begin, end, [&first](size_t, int32_t segment) {
    if (segment != kNoSegment && (first == kNoSegment || segment < first)) first = segment;
  });
  return first;
}

int32_t OwnerCursor::NearestOwner() const {
  for (size_t i = index_; i < runs_.size(); ++i) {
    if (runs_[i].segment != kNoSegment) return runs_[i].segment;
  }
  for (size_t i = std::min(index_, runs_.size()); i > 0; --i) {
    if (runs_[i - 1].segment != kNoSegment) return runs_[i - 1].segment;
  }
  return 0;
}

size_t OwnerCursor::CountBytes(size_t begin, size_t end) const {
  size_t bytes = end - begin;
  if (space_symbol_.empty()) return bytes;
  const std::string_view counted = text_.substr(begin, end - begin);
  for (size_t found = counted.find(space_symbol_); found != std::string_view::npos;
       found = counted.find(space_symbol_, found + space_symbol_.size())) {
    bytes -= space_symbol_.size() - 1;
  }
  return bytes;
}

int32_t OwnerCursor::MajorityOwner(size_t begin, size_t end) {
  Seek(begin);
  if (index_ < runs_.size() && runs_[index_].end >= end && runs_[index_].segment != kNoSegment) {
    return runs_[index_].segment;
  }
  counts_.clear();
  size_t position = begin;
  ForEachRun(begin, end, [&](size_t run_end, int32_t segment) {
    if (segment != kNoSegment) counts_.emplace_back(segment, CountBytes(position, run_end));
    position = run_end;
  });
  if (counts_.empty()) return NearestOwner();
  std::sort(counts_.begin(), counts_.end());
  int32_t best = kNoSegment;
  size_t best_bytes = 0;
  for (size_t i = 0; i < counts_.size();) {
    const int32_t segment = counts_[i].first;
    size_t bytes = 0;
    for (; i < counts_.size() && counts_[i].first == segment; ++i) bytes += counts_[i].second;
    if (bytes > best_bytes) {
      best = segment;
      best_bytes = bytes;
    }
  }
  return best;
}

void AppendRange(const OwnedText& from, size_t begin, size_t end, OwnerCursor* cursor,
                 OwnedText* out) {
  const std::string_view text = from.text;
  cursor->ForEachRun(begin, end, [&](size_t run_end, int32_t segment) {
    out->Append(text.substr(begin, run_end - begin), segment);
    begin = run_end;
  });
}

}  // namespace structattn
