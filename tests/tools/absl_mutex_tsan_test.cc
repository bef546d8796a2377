// With absl_mutex_tsan.cc, the thread sanitizer sees that what abseil's locks guard is no race, and
// what they do not guard still is one. Built only where that sanitizer is.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace structattn {
namespace {

// The status with which the sanitizer ends a program that it reported.
constexpr int kReported = 66;
constexpr int kRounds = 1000;

// Runs work(0) and work(1), each on a thread of its own.
template <typename Work>
void OnTwoThreads(const Work& work) {
  std::thread first([&] { work(0); });
  std::thread second([&] { work(1); });
  first.join();
  second.join();
}

// Each test runs in a program of its own, which ends with kReported after any report.
template <typename Work>
void ExpectNoRace(const Work& work) {
  EXPECT_EXIT((work(), std::exit(0)), testing::ExitedWithCode(0), "");
}

class AbslMutexTsanTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  absl::Mutex mutex_;
  absl::CondVar changed_;
  int counter_ = 0;
};

TEST_F(AbslMutexTsanTest, ReportsWhatIsNotGuarded) {
  const auto race = [&] {
    OnTwoThreads([&](int) {
      for (int i = 0; i < kRounds; ++i) ++counter_;
    });
    std::exit(0);
  };
  EXPECT_EXIT(race(), testing::ExitedWithCode(kReported), "data race");
}

TEST_F(AbslMutexTsanTest, ReportsWhatOnlyOneSideGuards) {
  const auto race = [&] {
    OnTwoThreads([&](int thread) {
      for (int i = 0; i < kRounds; ++i) {
        if (thread == 0) mutex_.Lock();
        ++counter_;
        if (thread == 0) mutex_.Unlock();
      }
    });
    std::exit(0);
  };
  EXPECT_EXIT(race(), testing::ExitedWithCode(kReported), "data race");
}

TEST_F(AbslMutexTsanTest, ReportsWritesUnderAReaderLock) {
  const auto race = [&] {
    OnTwoThreads([&](int) {
      for (int i = 0; i < kRounds; ++i) {
        const absl::ReaderMutexLock lock(&mutex_);
        ++counter_;
      }
    });
    std::exit(0);
  };
  EXPECT_EXIT(race(), testing::ExitedWithCode(kReported), "data race");
}

TEST_F(AbslMutexTsanTest, LocksOrder) {
  ExpectNoRace([&] {
    OnTwoThreads([&](int thread) {
      for (int i = 0; i < kRounds; ++i) {
        if (thread == 0) {
          const absl::MutexLock lock(&mutex_);
          ++counter_;
        } else if (mutex_.TryLock()) {
          ++counter_;
          mutex_.Unlock();
        }
        absl::ReleasableMutexLock lock(&mutex_);
        ++counter_;
        lock.Release();
      }
    });
  });
}

TEST_F(AbslMutexTsanTest, ReadersAreOrderedWithWriters) {
  ExpectNoRace([&] {
    OnTwoThreads([&](int thread) {
      int sum = 0;
      for (int i = 0; i < kRounds; ++i) {
        if (thread == 0) {
          const absl::MutexLock lock(&mutex_);
          ++counter_;
        } else {
          const absl::ReaderMutexLock lock(&mutex_);
          sum += counter_;
        }
      }
    });
  });
}

// The two threads take turns, each writing a number that only its turn protects.
TEST_F(AbslMutexTsanTest, WaitsOrder) {
  ExpectNoRace([&] {
    int written = 0;
    OnTwoThreads([&](int thread) {
      for (int i = 0; i < kRounds; ++i) {
        {
          const absl::MutexLock lock(&mutex_);
          while (counter_ % 2 != thread) {
            if (i % 3 == 0) changed_.Wait(&mutex_);
            if (i % 3 == 1) changed_.WaitWithTimeout(&mutex_, absl::Milliseconds(1));
            if (i % 3 == 2) changed_.WaitWithDeadline(&mutex_, absl::Now() + absl::Milliseconds(1));
          }
        }
        ++written;
        const absl::MutexLock lock(&mutex_);
        ++counter_;
        changed_.Signal();
      }
    });
  });
}

TEST_F(AbslMutexTsanTest, NotificationsOrder) {
  ExpectNoRace([&] {
    absl::Notification written, read;
    OnTwoThreads([&](int thread) {
      if (thread == 0) {
        ++counter_;
        written.Notify();
        read.WaitForNotification();
        ++counter_;
      } else {
        while (!written.WaitForNotificationWithTimeout(absl::Milliseconds(1))) {
        }
        ++counter_;
        read.Notify();
      }
    });
  });
}

// A new mutex at the address of one that is gone starts with nothing held and nothing ordered.
TEST_F(AbslMutexTsanTest, MutexesMayFollowEachOther) {
  ExpectNoRace([&] {
    for (int i = 0; i < kRounds; ++i) {
      absl::Mutex mutex;
      const absl::MutexLock lock(&mutex);
      ++counter_;
    }
  });
}

}  // namespace
}  // namespace structattn
