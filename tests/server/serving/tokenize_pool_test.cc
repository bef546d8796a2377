// TokenizePool: what runs where and in which order, what is refused, and how it ends.
#include "server/serving/tokenize_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace structattn::serving {
namespace {

constexpr int64_t kCheap = 100;
constexpr int64_t kCostly = 1 << 20;

int NiceOfThisThread() { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); }

TEST(TokenizePool, CheapJobsRunInOrderBesideCostlyOnes) {
  TokenizePool pool({});
  absl::Notification release, costly_runs, cheap_done;
  ASSERT_TRUE(pool.Post(kCostly,
                        [&] {
                          costly_runs.Notify();
                          release.WaitForNotification();
                        })
                  .ok());
  costly_runs.WaitForNotification();
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.Post(kCheap, [&, i] { order.push_back(i); }).ok());
  ASSERT_TRUE(pool.Post(kCheap, [&] { cheap_done.Notify(); }).ok());
  cheap_done.WaitForNotification();
  EXPECT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  release.Notify();
}

TEST(TokenizePool, CostlyJobsGiveWayToEverybody) {
  TokenizePool pool({});
  const int own = NiceOfThisThread();
  for (const int64_t bytes : {kCheap, kCostly}) {
    int nice = 0;
    absl::Notification done;
    ASSERT_TRUE(pool.Post(bytes,
                          [&] {
                            nice = NiceOfThisThread();
                            done.Notify();
                          })
                    .ok());
    done.WaitForNotification();
    EXPECT_EQ(nice > own, bytes == kCostly);
  }
}

TEST(TokenizePool, RefusesWhatIsTooMuchToWait) {
  TokenizePool pool({.max_waiting_bytes = 2 * kCostly, .max_waiting_jobs = 3});
  absl::Notification release, costly_runs, cheap_runs;
  ASSERT_TRUE(pool.Post(kCostly,
                        [&] {
                          costly_runs.Notify();
                          release.WaitForNotification();
                        })
                  .ok());
  ASSERT_TRUE(pool.Post(kCheap,
                        [&] {
                          cheap_runs.Notify();
                          release.WaitForNotification();
                        })
                  .ok());
  costly_runs.WaitForNotification();
  cheap_runs.WaitForNotification();
  const auto nothing = [] {};
  EXPECT_TRUE(pool.Post(100 * kCostly, nothing).ok());  // One of any size may wait.
  EXPECT_TRUE(absl::IsResourceExhausted(pool.Post(kCostly, nothing)));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.Post(kCheap, nothing).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(pool.Post(kCheap, nothing)));
  release.Notify();
}

TEST(TokenizePool, TimedJobsRunWhenTheyAreDue) {
  TokenizePool pool({});
  const absl::Time begin = absl::Now();
  std::atomic<int> ran = 0;
  absl::Notification done;
  pool.PostAt(begin + absl::Milliseconds(30), [&] {
    EXPECT_GE(absl::Now(), begin + absl::Milliseconds(30));
    EXPECT_EQ(ran, 1);
    done.Notify();
  });
  pool.PostAt(begin + absl::Milliseconds(10), [&] { ++ran; });
  done.WaitForNotification();
}

TEST(TokenizePool, DropsWhatWaitsWhenItIsDestroyed) {
  const auto token = std::make_shared<int>(7);
  std::atomic<int> ran = 0;
  {
    TokenizePool pool({});
    absl::Notification costly_runs;
    ASSERT_TRUE(pool.Post(kCostly,
                          [&] {
                            costly_runs.Notify();
                            absl::SleepFor(absl::Milliseconds(50));
                            ++ran;
                          })
                    .ok());
    costly_runs.WaitForNotification();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(pool.Post(kCostly, [token, &ran] { ++ran; }).ok());
    pool.PostAt(absl::InfiniteFuture(), [token, &ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(token.use_count(), 1);
}

}  // namespace
}  // namespace structattn::serving
