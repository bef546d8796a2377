// Implements tokenize_pool.h.
#include "server/serving/tokenize_pool.h"

#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/field_error.h"

namespace structattn::serving {
namespace {

constexpr int kCostlyNice = 15;  // Of 19: about a thirtieth of the share of a thread at 0.

// Linux gives every thread a nice value of its own. Failing to set it costs time, not answers.
void LowerPriority() {
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kCostlyNice));
}

absl::Status QueueFull(const std::string& what) {
  return engine::FieldError(
      absl::StatusCode::kResourceExhausted, {"", "TOKENIZE_QUEUE_FULL"},
      absl::StrCat(what, " wait to be tokenized, which is the most that may wait"));
}

}  // namespace

TokenizePool::TokenizePool(const Options& options) : options_(options) {
  threads_.emplace_back([this] { RunCheap(); });
  for (int i = 0; i < options_.costly_threads; ++i) {
    threads_.emplace_back([this] { RunCostly(); });
  }
}

TokenizePool::~TokenizePool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  cheap_changed_.SignalAll();
  costly_changed_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status TokenizePool::Post(int64_t bytes, Job job) {
  absl::MutexLock lock(&mutex_);
  if (IsCheap(bytes)) {
    if (cheap_.size() >= options_.max_waiting_jobs) {
      return QueueFull(absl::StrCat(cheap_.size(), " requests"));
    }
    cheap_.push_back(std::move(job));
    cheap_changed_.Signal();
    return absl::OkStatus();
  }
  // One job of any size may always wait.
  if (costly_.size() >= options_.max_waiting_jobs ||
      (!costly_.empty() && costly_bytes_ + bytes > options_.max_waiting_bytes)) {
    return QueueFull(absl::StrCat(costly_bytes_, " bytes of text"));
  }
  costly_.push_back({.bytes = bytes, .job = std::move(job)});
  costly_bytes_ += bytes;
  costly_changed_.Signal();
  return absl::OkStatus();
}

void TokenizePool::PostAt(absl::Time time, Job job) {
  absl::MutexLock lock(&mutex_);
  timed_.emplace(time, std::move(job));
  cheap_changed_.Signal();
}

// Empty when the pool stops. Jobs whose time has come go first.
TokenizePool::Job TokenizePool::NextCheap() {
  while (!stopping_) {
    if (!timed_.empty() && timed_.begin()->first <= absl::Now()) {
      return std::move(timed_.extract(timed_.begin()).mapped());
    }
    if (!cheap_.empty()) {
      Job job = std::move(cheap_.front());
      cheap_.pop_front();
      return job;
    }
    if (timed_.empty()) {
      cheap_changed_.Wait(&mutex_);
    } else {
      cheap_changed_.WaitWithDeadline(&mutex_, timed_.begin()->first);
    }
  }
  return nullptr;
}

void TokenizePool::RunCheap() {
  for (;;) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      job = NextCheap();
    }
    if (job == nullptr) return;
    job();
  }
}

void TokenizePool::RunCostly() {
  LowerPriority();
  for (;;) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && costly_.empty()) costly_changed_.Wait(&mutex_);
      if (stopping_) return;
      job = std::move(costly_.front().job);
      costly_bytes_ -= costly_.front().bytes;
      costly_.pop_front();
    }
    job();
  }
}

}  // namespace structattn::serving
