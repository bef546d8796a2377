// What one GenerateBatch stream has taken and not yet answered to the end: a bounded window of
// messages, and which answer is written next. It knows no gRPC, makes no calls and takes no lock:
// the stream guards it.
#ifndef STRUCTATTN_SERVER_RPC_V1_BATCH_WINDOW_H_
#define STRUCTATTN_SERVER_RPC_V1_BATCH_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/serving/call.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

// One message that gets an answer.
struct BatchEntry {
  int64_t index = 0;  // The message's place in the stream.
  std::string request_id;
  std::string model;                    // As the client named it; at most what the log takes.
  std::shared_ptr<serving::Call> call;  // Null until it is admitted, and of a malformed message.
  bool is_answered = false;
  absl::Status outcome;                             // The end of an answered entry.
  std::deque<v1::GenerateBatchResponse> responses;  // What is not yet written of an answered entry.
};

struct BatchSettings {
  int32_t max_entries = 64;  // Messages that are not answered to the end.
  bool in_input_order = false;
};

class BatchWindow {
 public:
  // Before the first entry.
  void Configure(const BatchSettings& settings);

  bool full() const { return entries_.size() >= static_cast<size_t>(settings_.max_entries); }
  bool empty() const { return entries_.empty(); }
  int unanswered() const { return unanswered_; }

  // Indices grow; not when full. With a request id that another entry has, the other keeps it.
  BatchEntry& Open(int64_t index, std::string request_id);
  BatchEntry* Find(int64_t index);                    // Null when it is not here (any more).
  BatchEntry* FindById(std::string_view request_id);  // Among those not yet answered.
  std::vector<BatchEntry*> All();

  // `responses` is what the client gets for the entry, in order: one or more.
  void Answer(BatchEntry& entry, std::deque<v1::GenerateBatchResponse> responses);
  // Removes an entry that is not answered; nothing is sent for it.
  void Drop(BatchEntry& entry);

  // The message to write now; null when none may be written yet. The messages of one entry follow
  // each other.
  v1::GenerateBatchResponse* NextToWrite();
  // It has been written. The entry, when that was its last message.
  std::optional<BatchEntry> PopWritten();

  void Clear();

 private:
  void ForgetId(const BatchEntry& entry);

  BatchSettings settings_;
  std::map<int64_t, BatchEntry> entries_;  // By index.
  std::map<std::string, int64_t, std::less<>> by_id_;
  std::deque<int64_t> answered_;    // In the order of their ends; unused in input order.
  std::optional<int64_t> writing_;  // The entry whose messages are being written.
  int unanswered_ = 0;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_BATCH_WINDOW_H_
