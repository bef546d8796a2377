// Implements background_call.h: the thread of the queue.
#include "server/rpc/v1/background_call.h"

namespace structattn::rpc {

BackgroundQueue::BackgroundQueue() : thread_([this] { Run(); }) {}

void BackgroundQueue::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  changed_.Signal();
  if (thread_.joinable()) thread_.join();
}

bool BackgroundQueue::Post(std::function<void()> job) {
  absl::MutexLock lock(&mutex_);
  if (stopping_ || jobs_.size() >= kMaxWaiting) return false;
  jobs_.push_back(std::move(job));
  changed_.Signal();
  return true;
}

bool BackgroundQueue::busy() {
  absl::MutexLock lock(&mutex_);
  return running_;
}

void BackgroundQueue::Run() {
  for (;;) {
    std::function<void()> job;
    {
      absl::MutexLock lock(&mutex_);
      running_ = false;
      while (!stopping_ && jobs_.empty()) changed_.Wait(&mutex_);
      if (stopping_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      running_ = true;
    }
    job();
  }
}

}  // namespace structattn::rpc
