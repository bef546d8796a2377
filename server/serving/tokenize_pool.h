// The threads that tokenize requests, so that no protocol's thread ever does: bounded in
// what waits, and built so that a costly text delays no cheap one.
//
// Cheap jobs (few bytes of text) run in order on a thread of their own. Costly jobs run in order on
// others, at a lower priority than everything else of the process: a megabyte of hostile text takes
// only what is idle otherwise. The pool knows nothing of requests.
#ifndef STRUCTATTN_SERVER_SERVING_TOKENIZE_POOL_H_
#define STRUCTATTN_SERVER_SERVING_TOKENIZE_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace structattn::serving {

class TokenizePool {
 public:
  struct Options {
    int costly_threads = 1;
    int64_t max_cheap_bytes = int64_t{16} << 10;    // A job of more bytes is a costly one.
    int64_t max_waiting_bytes = int64_t{64} << 20;  // Text of the costly jobs that wait.
    size_t max_waiting_jobs = 4096;                 // Cheap ones, and costly ones.
  };
  using Job = std::function<void()>;

  explicit TokenizePool(const Options& options);
  // Drops what waits and joins the threads once their jobs return.
  ~TokenizePool();
  TokenizePool(const TokenizePool&) = delete;
  TokenizePool& operator=(const TokenizePool&) = delete;

  bool IsCheap(int64_t bytes) const { return bytes <= options_.max_cheap_bytes; }

  // Runs `job`, which tokenizes `bytes` of text, on a thread of the pool. RESOURCE_EXHAUSTED, with
  // the reason TOKENIZE_QUEUE_FULL, when too much waits.
  absl::Status Post(int64_t bytes, Job job);
  // Runs a cheap job at `time`, however much waits.
  void PostAt(absl::Time time, Job job);

 private:
  struct Costly {
    int64_t bytes;
    Job job;
  };

  void RunCheap();
  void RunCostly();
  Job NextCheap() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  absl::Mutex mutex_;
  absl::CondVar cheap_changed_;
  absl::CondVar costly_changed_;
  std::deque<Job> cheap_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, Job> timed_ ABSL_GUARDED_BY(mutex_);
  std::deque<Costly> costly_ ABSL_GUARDED_BY(mutex_);
  int64_t costly_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // Last: they use everything above.
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_TOKENIZE_POOL_H_
