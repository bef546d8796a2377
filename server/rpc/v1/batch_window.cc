// Implements batch_window.h.
#include "server/rpc/v1/batch_window.h"

#include <utility>

#include "kernels/check.h"

namespace structattn::rpc {

void BatchWindow::Configure(const BatchSettings& settings) {
  STRUCTATTN_CHECK(settings.max_entries > 0 && empty());
  settings_ = settings;
}

BatchEntry& BatchWindow::Open(int64_t index, std::string request_id) {
  STRUCTATTN_CHECK(!full() && (empty() || entries_.rbegin()->first < index));
  BatchEntry& entry = entries_[index];
  entry.index = index;
  entry.request_id = std::move(request_id);
  ++unanswered_;
  if (!entry.request_id.empty()) by_id_.emplace(entry.request_id, index);
  return entry;
}

BatchEntry* BatchWindow::Find(int64_t index) {
  const auto found = entries_.find(index);
  return found == entries_.end() ? nullptr : &found->second;
}

BatchEntry* BatchWindow::FindById(std::string_view request_id) {
  const auto found = by_id_.find(request_id);
  return found == by_id_.end() ? nullptr : Find(found->second);
}

std::vector<BatchEntry*> BatchWindow::All() {
  std::vector<BatchEntry*> all;
  for (auto& [index, entry] : entries_) all.push_back(&entry);
  return all;
}

void BatchWindow::Answer(BatchEntry& entry, std::deque<v1::GenerateBatchResponse> responses) {
  STRUCTATTN_CHECK(!entry.is_answered && !responses.empty());
  entry.is_answered = true;
  entry.responses = std::move(responses);
  ForgetId(entry);
  if (!settings_.in_input_order) answered_.push_back(entry.index);
  --unanswered_;
}

void BatchWindow::Drop(BatchEntry& entry) {
  STRUCTATTN_CHECK(!entry.is_answered);
  ForgetId(entry);
  entries_.erase(entry.index);
  --unanswered_;
}

void BatchWindow::ForgetId(const BatchEntry& entry) {
  const auto named = by_id_.find(entry.request_id);
  if (named != by_id_.end() && named->second == entry.index) by_id_.erase(named);
}

v1::GenerateBatchResponse* BatchWindow::NextToWrite() {
  if (!writing_.has_value()) {
    if (settings_.in_input_order) {
      if (empty() || !entries_.begin()->second.is_answered) return nullptr;
      writing_ = entries_.begin()->first;
    } else {
      if (answered_.empty()) return nullptr;
      writing_ = answered_.front();
      answered_.pop_front();
    }
  }
  return &entries_.at(*writing_).responses.front();
}

std::optional<BatchEntry> BatchWindow::PopWritten() {
  BatchEntry& entry = entries_.at(writing_.value());
  entry.responses.pop_front();
  if (!entry.responses.empty()) return std::nullopt;
  std::optional<BatchEntry> closed = std::move(entry);
  entries_.erase(*writing_);
  writing_.reset();
  return closed;
}

void BatchWindow::Clear() {
  entries_.clear();
  by_id_.clear();
  answered_.clear();
  writing_.reset();
  unanswered_ = 0;
}

}  // namespace structattn::rpc
