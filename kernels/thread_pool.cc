// The worker threads behind every CPU kernel: joining, leaving and sleeping.
// Never allocates in a loop.
#include "kernels/thread_pool.h"

#include "kernels/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace structattn {
namespace {

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Watches `ready` for kSpin at most; true if it came. Yields now and then: where threads outnumber
// free cores, the one that is waited for may be queued behind this one.
template <typename Ready>
bool Spin(const Ready& ready) {
  constexpr int kPausesPerYield = 16;
  const auto deadline = std::chrono::steady_clock::now() + ThreadPool::kSpin;
  do {
    for (int i = 0; i < kPausesPerYield; ++i) {
      if (ready()) return true;
      Pause();
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < deadline);
  return ready();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  STRUCTATTN_CHECK(threads >= 1 && threads <= static_cast<int>(kInsideMask));
  workers_.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_.store(true);
  }
  start_.SignalAll();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> item) {
  if (workers_.empty() || count <= 1) {
    for (int64_t i = 0; i < count; ++i) item(i);
    return;
  }
  item_ = &item;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  const uint64_t loop = (state_.load(std::memory_order_relaxed) >> kLoopShift) + 1;
  state_.store((loop << kLoopShift) | kOpen);
  WakeWorkers(count - 1);
  RunItems();
  // A worker that joined keeps item_ alive; none joins once the loop is closed.
  if ((state_.fetch_and(~kOpen) & kInsideMask) != 0) WaitUntilEmpty();
}

// The store to state_ and the load of sleeping_ are sequentially consistent, as are a worker's
// increment of sleeping_ and its look at state_: one of the two sees the other.
void ThreadPool::WakeWorkers(int64_t wanted) {
  const int sleeping = sleeping_.load();
  if (sleeping == 0) return;
  { const absl::MutexLock lock(&mutex_); }
  if (wanted >= sleeping) {
    start_.SignalAll();
  } else {
    for (int64_t i = 0; i < wanted; ++i) start_.Signal();
  }
}

void ThreadPool::RunItems() {
  const int64_t count = count_;
  const absl::FunctionRef<void(int64_t)>& item = *item_;
  for (;;) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return;
    item(i);
  }
}

void ThreadPool::WaitUntilEmpty() {
  const auto empty = [this] { return (state_.load() & kInsideMask) == 0; };
  if (Spin(empty)) return;
  const absl::MutexLock lock(&mutex_);
  caller_sleeping_.store(true);
  while (!empty()) done_.Wait(&mutex_);
  caller_sleeping_.store(false);
}

void ThreadPool::WorkerLoop() {
  uint64_t last_loop = 0;
  for (;;) {
    const uint64_t loop = WaitForLoop(last_loop);
    if (loop == 0) return;
    last_loop = loop;
    if (!Join(loop)) continue;
    RunItems();
    Leave();
  }
}

// The number of an open loop other than `last_loop`, or 0 when the pool stops.
uint64_t ThreadPool::WaitForLoop(uint64_t last_loop) {
  uint64_t seen = 0;
  const auto ready = [&] {
    seen = state_.load();
    return ((seen & kOpen) != 0 && (seen >> kLoopShift) != last_loop) || stopping_.load();
  };
  if (!Spin(ready)) {
    const absl::MutexLock lock(&mutex_);
    sleeping_.fetch_add(1);
    while (!ready()) start_.Wait(&mutex_);
    sleeping_.fetch_sub(1);
  }
  return stopping_.load() ? 0 : seen >> kLoopShift;
}

// Enters `loop` unless it has been closed meanwhile.
bool ThreadPool::Join(uint64_t loop) {
  uint64_t state = state_.load();
  while ((state & kOpen) != 0 && (state >> kLoopShift) == loop) {
    if (state_.compare_exchange_weak(state, state + 1)) return true;
  }
  return false;
}

void ThreadPool::Leave() {
  const uint64_t before = state_.fetch_sub(1);
  if ((before & kInsideMask) == 1 && caller_sleeping_.load()) {
    { const absl::MutexLock lock(&mutex_); }
    done_.Signal();
  }
}

}  // namespace structattn
