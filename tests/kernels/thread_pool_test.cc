// ThreadPool: each item once, for any number of threads; loops that follow each other at once or
// after the workers have gone to sleep; an idle pool that uses no CPU. Run it under TSan, too.
#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <random>
#include <set>
#include <vector>

namespace structattn {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

double ProcessCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEachItemOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (const int64_t count : {0, 1, 2, 3, 17, 1000}) {
    std::vector<int> calls(count, 0);  // The end of a loop must order these writes.
    pool.ParallelFor(count, [&](int64_t i) { ++calls[i]; });
    for (int64_t i = 0; i < count; ++i) EXPECT_EQ(calls[i], 1) << i << " of " << count;
  }
}

// Each loop reads what the one before it wrote, as the ops of a decode step do.
TEST_P(ThreadPoolTest, LoopsFollowEachOtherAtOnce) {
  constexpr int kLoops = 20000;
  constexpr int64_t kCount = 7;
  ThreadPool pool(GetParam());
  std::vector<int64_t> from(kCount, 0);
  std::vector<int64_t> to(kCount, 0);
  for (int loop = 0; loop < kLoops; ++loop) {
    pool.ParallelFor(kCount, [&](int64_t i) { to[i] = from[(i + 1) % kCount] + 1; });
    from.swap(to);
  }
  for (const int64_t value : from) EXPECT_EQ(value, kLoops);
}

// Pauses around kSpin make workers fall asleep just as the next loop opens.
TEST_P(ThreadPoolTest, LoopsFollowPausesOfAnyLength) {
  ThreadPool pool(GetParam());
  constexpr uint32_t kSeed = 5;
  std::mt19937 generator(kSeed);
  std::uniform_int_distribution<int> pause_us(0, 4 * static_cast<int>(ThreadPool::kSpin.count()));
  int64_t sum = 0;
  for (int loop = 0; loop < 1000; ++loop) {
    std::vector<int64_t> parts(5, 0);
    pool.ParallelFor(5, [&](int64_t i) { parts[i] = i; });
    for (const int64_t part : parts) sum += part;
    const auto until = std::chrono::steady_clock::now() + microseconds(pause_us(generator));
    while (std::chrono::steady_clock::now() < until) {
    }
  }
  EXPECT_EQ(sum, 1000 * (0 + 1 + 2 + 3 + 4));
}

// The caller outlasts its spin while a worker holds the last item.
TEST_P(ThreadPoolTest, WaitsForSlowItems) {
  ThreadPool pool(GetParam());
  for (int loop = 0; loop < 20; ++loop) {
    std::atomic<int> done = 0;
    pool.ParallelFor(GetParam(), [&](int64_t) {
      std::this_thread::sleep_for(milliseconds(2));
      done.fetch_add(1, std::memory_order_relaxed);
    });
    ASSERT_EQ(done.load(), GetParam());
  }
}

TEST_P(ThreadPoolTest, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(GetParam());
}

TEST_P(ThreadPoolTest, IdlePoolUsesNoCpu) {
  ThreadPool pool(GetParam());
  pool.ParallelFor(100, [](int64_t) {});
  std::this_thread::sleep_for(milliseconds(50));  // Far over kSpin.
  const double before = ProcessCpuSeconds();
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_LT(ProcessCpuSeconds() - before, 0.003);  // A spinning worker would use 0.3 s.
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

// An item that waits for another one can only end if two threads work at the same time.
TEST(ThreadPoolParallelTest, UsesItsThreads) {
  ThreadPool pool(3);
  std::atomic<int> arrived = 0;
  std::vector<std::thread::id> ids(3);
  pool.ParallelFor(3, [&](int64_t i) {
    ids[i] = std::this_thread::get_id();
    arrived.fetch_add(1);
    while (arrived.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 3u);
}

}  // namespace
}  // namespace structattn
