// See background_call.h: the queue's thread.
#include "server/rpc/background_call.h"

namespace structattn {

BackgroundQueue::BackgroundQueue() : thread_([this] { Run(); }) {}

void BackgroundQueue::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool BackgroundQueue::Post(std::function<void()> job) {
  std::lock_guard lock(mutex_);
  if (stopping_ || jobs_.size() >= kMaxWaiting) return false;
  jobs_.push_back(std::move(job));
  changed_.notify_one();
  return true;
}

bool BackgroundQueue::busy() {
  std::lock_guard lock(mutex_);
  return running_;
}

void BackgroundQueue::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    running_ = true;
    lock.unlock();
    job();
    lock.lock();
    running_ = false;
  }
}

}  // namespace structattn
