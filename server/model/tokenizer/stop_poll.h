// Asks a stop token once in a while: reading it for every word would cost more than the word.
// Belongs to one call on one thread; never stops anything itself.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_STOP_POLL_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_STOP_POLL_H_

#include <cstddef>
#include <stop_token>
#include <utility>

namespace structattn {

class StopPoll {
 public:
  explicit StopPoll(std::stop_token stop) : stop_(std::move(stop)) {}

  // Adds `bytes` of work that is about to be done; true from the first poll after a request on.
  bool Stopped(size_t bytes) {
    work_ += bytes;
    if (work_ >= kBytesPerPoll) {
      work_ = 0;
      stopped_ = stopped_ || stop_.stop_requested();
    }
    return stopped_;
  }

 private:
  // Less than a millisecond of work.
  static constexpr size_t kBytesPerPoll = 1 << 14;

  std::stop_token stop_;
  size_t work_ = kBytesPerPoll;  // The first call polls.
  bool stopped_ = false;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_STOP_POLL_H_
