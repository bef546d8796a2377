// A fixed set of worker threads that run the items of one parallel loop at a time.
// Owned by a model's engine; every CPU kernel receives it. Never changes what an item computes:
// kernels cut work into items that do not depend on the number of threads.
#ifndef STRUCTATTN_KERNELS_THREAD_POOL_H_
#define STRUCTATTN_KERNELS_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace structattn {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller of ParallelFor, so 1 starts no thread at all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls item(i) once for each i in [0, count), on any thread, in any order; returns when all are
  // done. Only one thread may call it at a time; items must not call it.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> item);

 private:
  void WorkerLoop();
  void RunItems();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  uint64_t generation_ = 0;  // Guarded by mutex_.
  int running_ = 0;          // Workers still inside the current loop. Guarded by mutex_.
  bool stopping_ = false;    // Guarded by mutex_.
  const absl::FunctionRef<void(int64_t)>* item_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_THREAD_POOL_H_
