// A fixed set of worker threads that run the items of one parallel loop at a time.
// Never changes what an item computes: kernels cut work into items that do not depend on the number
// of threads.
//
// A decode step is some hundred loops of a few microseconds each, so a worker that runs out of work
// watches for the next loop for kSpin before it sleeps; an idle pool uses no CPU. The caller never
// waits for a worker that has not joined the loop, so a worker that wakes late costs nothing.
#ifndef STRUCTATTN_KERNELS_THREAD_POOL_H_
#define STRUCTATTN_KERNELS_THREAD_POOL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace structattn {

class ThreadPool {
 public:
  // How long a thread watches for its next event before it sleeps.
  static constexpr std::chrono::microseconds kSpin{40};

  // `threads` >= 1 counts the caller of ParallelFor, so 1 starts no thread at all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls item(i) once for each i in [0, count), on any thread, in any order; returns when all are
  // done. Only one thread may call it at a time; items must not call it and must not throw.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> item);

 private:
  // state_ is one word, so that a worker joins exactly the loop it saw open:
  // bits 0..15 workers inside the loop, bit 16 open to join, bits 17.. number of the loop.
  static constexpr uint64_t kInsideMask = 0xffff;
  static constexpr uint64_t kOpen = 0x10000;
  static constexpr int kLoopShift = 17;

  void WorkerLoop();
  uint64_t WaitForLoop(uint64_t last_loop);
  bool Join(uint64_t loop);
  void Leave();
  void RunItems();
  void WakeWorkers(int64_t wanted);
  void WaitUntilEmpty();

  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> sleeping_{0};              // Workers in, or about to enter, start_.Wait.
  std::atomic<bool> caller_sleeping_{false};  // The caller is in, or about to enter, done_.Wait.
  alignas(64) std::atomic<int64_t> next_{0};  // The next item to hand out.
  // Written before the loop opens and read only by threads inside it.
  alignas(64) const absl::FunctionRef<void(int64_t)>* item_ = nullptr;
  int64_t count_ = 0;

  // Guards nothing but the two sleeps: what they wait for is atomic, and changes without it.
  absl::Mutex mutex_;
  absl::CondVar start_;
  absl::CondVar done_;
  std::vector<std::thread> workers_;
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_THREAD_POOL_H_
