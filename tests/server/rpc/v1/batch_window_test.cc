// BatchWindow against a naive list of messages, under random operations; SeenIds.
#include "server/rpc/v1/batch_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "server/rpc/v1/batch_codec.h"
#include "server/rpc/v1/seen_ids.h"

namespace structattn::rpc {
namespace {

// A message as the naive model keeps it.
struct Message {
  int64_t index;
  std::string id;
  int64_t answered_at = -1;  // -1: not yet.
  int parts_left = 0;
};

class Model {
 public:
  Model(BatchSettings settings, uint32_t seed) : settings_(settings), random_(seed) {
    window_.Configure(settings);
  }

  void Step() {
    switch (random_() % 4) {
      case 0:
        return Open();
      case 1:
        return AnswerOrDrop();
      default:
        return Write();
    }
  }

  void Check() {
    EXPECT_EQ(window_.full(), messages_.size() == static_cast<size_t>(settings_.max_entries));
    EXPECT_EQ(window_.empty(), messages_.empty());
    EXPECT_EQ(window_.All().size(), messages_.size());
    int unanswered = 0;
    for (const Message& message : messages_) {
      ASSERT_NE(window_.Find(message.index), nullptr);
      if (message.answered_at >= 0) continue;
      ++unanswered;
      // Of several with one id, the first that is not answered.
      if (message.id.empty() || HasEarlier(message)) continue;
      BatchEntry* found = window_.FindById(message.id);
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->index, message.index);
    }
    EXPECT_EQ(window_.unanswered(), unanswered);
    EXPECT_EQ(window_.Find(next_index_), nullptr);
    EXPECT_EQ(window_.FindById("none"), nullptr);
  }

  int written() const { return written_; }

 private:
  bool HasEarlier(const Message& message) const {
    return std::any_of(messages_.begin(), messages_.end(), [&](const Message& other) {
      return other.index < message.index && other.id == message.id;
    });
  }

  void Open() {
    if (window_.full()) return;
    // Ids are unique among what is here, as in a stream.
    const std::string id = random_() % 5 == 0 ? "" : std::to_string(next_index_);
    BatchEntry& entry = window_.Open(next_index_, id);
    EXPECT_EQ(entry.request_id, id);
    messages_.push_back({.index = next_index_, .id = id});
    next_index_ += 1 + random_() % 3;
  }

  void AnswerOrDrop() {
    std::vector<Message*> open;
    for (Message& message : messages_) {
      if (message.answered_at < 0) open.push_back(&message);
    }
    if (open.empty()) return;
    Message& message = *open[random_() % open.size()];
    BatchEntry& entry = *window_.Find(message.index);
    if (random_() % 6 == 0) {
      window_.Drop(entry);
      messages_.erase(messages_.begin() + (&message - messages_.data()));
      return;
    }
    message.answered_at = clock_++;
    message.parts_left = 1 + static_cast<int>(random_() % 3);
    std::deque<v1::GenerateBatchResponse> responses(message.parts_left);
    for (v1::GenerateBatchResponse& response : responses) response.set_message_index(message.index);
    window_.Answer(entry, std::move(responses));
  }

  void Write() {
    const auto due = Due();
    v1::GenerateBatchResponse* next = window_.NextToWrite();
    ASSERT_EQ(next != nullptr, due != messages_.end());
    if (next == nullptr) return;
    writing_ = due->index;
    EXPECT_EQ(next->message_index(), due->index);
    const std::optional<BatchEntry> closed = window_.PopWritten();
    ASSERT_EQ(closed.has_value(), --due->parts_left == 0);
    if (!closed.has_value()) return;
    EXPECT_EQ(closed->index, due->index);
    messages_.erase(due);
    writing_ = -1;
    ++written_;
  }

  std::vector<Message>::iterator Due() {
    const auto named = [&](int64_t index) {
      return std::find_if(messages_.begin(), messages_.end(),
                          [index](const Message& message) { return message.index == index; });
    };
    if (writing_ >= 0) return named(writing_);
    if (messages_.empty()) return messages_.end();
    if (settings_.in_input_order) {
      return messages_.front().answered_at >= 0 ? messages_.begin() : messages_.end();
    }
    auto first = messages_.end();
    for (auto it = messages_.begin(); it != messages_.end(); ++it) {
      if (it->answered_at < 0) continue;
      if (first == messages_.end() || it->answered_at < first->answered_at) first = it;
    }
    return first;
  }

  const BatchSettings settings_;
  std::mt19937 random_;
  BatchWindow window_;
  std::vector<Message> messages_;  // By index.
  int64_t next_index_ = 0;
  int64_t clock_ = 0;
  int64_t writing_ = -1;
  int written_ = 0;
};

TEST(BatchWindow, IsANaiveListUnderRandomOperations) {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  for (uint32_t round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    Model model(
        {.max_entries = 1 + static_cast<int32_t>(round % 9), .in_input_order = round % 2 == 0},
        seed + round);
    for (int step = 0; step < 400 && !::testing::Test::HasFailure(); ++step) {
      model.Step();
      model.Check();
    }
    EXPECT_GT(model.written(), 10);
  }
}

TEST(BatchWindow, ARefusedDuplicateLeavesTheFirstItsId) {
  BatchWindow window;
  window.Open(0, "a");
  BatchEntry& duplicate = window.Open(1, "a");
  window.Answer(duplicate, EncodeBatchAnswer(duplicate, {.error = absl::AlreadyExistsError("x")}));
  ASSERT_NE(window.FindById("a"), nullptr);
  EXPECT_EQ(window.FindById("a")->index, 0);
}

TEST(SeenIds, RemembersEveryIdWhateverItsLength) {
  SeenIds ids;
  const std::vector<std::string> given = {
      "", "a", "b", std::string(256, 'x'), std::string(255, 'x'), std::string("a\0b", 3)};
  for (const std::string& id : given) {
    EXPECT_FALSE(ids.Contains(id));
    EXPECT_TRUE(ids.Insert(id));
    EXPECT_FALSE(ids.Insert(id));
    EXPECT_TRUE(ids.Contains(id));
  }
  EXPECT_EQ(ids.size(), given.size());
}

}  // namespace
}  // namespace structattn::rpc
