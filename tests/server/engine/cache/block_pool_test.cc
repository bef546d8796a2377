// BlockPool against a naive model: owners in a map, cached blocks in a plain list, keys searched
// for one by one.
#include "server/engine/cache/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <vector>

namespace structattn::engine {
namespace {

BlockKey KeyOf(int number) {
  BlockKey key = {};
  key[0] = static_cast<uint8_t>(number);
  key[31] = static_cast<uint8_t>(number >> 8);
  return key;
}

TEST(BlockPoolTest, GivesEveryBlockOnceAndReusesTheWarmestFirst) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 1);
  EXPECT_EQ(pool.Allocate(), 2);
  EXPECT_EQ(pool.available(), 0);
  pool.Release(0);
  pool.Release(2);
  EXPECT_EQ(pool.Allocate(), 2);
}

TEST(BlockPoolTest, APublishedBlockIsFoundUntilItsMemoryIsNeeded) {
  BlockPool pool(2);
  const int32_t block = pool.Allocate();
  EXPECT_EQ(pool.Acquire(KeyOf(1)), std::nullopt);
  pool.Publish(block, KeyOf(1));
  EXPECT_EQ(pool.Acquire(KeyOf(1)), block);
  EXPECT_EQ(pool.owners(block), 2);
  pool.Release(block);
  EXPECT_TRUE(pool.IsOwned(KeyOf(1)));
  pool.Release(block);
  EXPECT_FALSE(pool.IsOwned(KeyOf(1)));
  EXPECT_EQ(pool.available(), 2);
  EXPECT_NE(pool.Allocate(), block);  // The free one goes first.
  EXPECT_EQ(pool.Acquire(KeyOf(1)), block);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), block);
  EXPECT_EQ(pool.Acquire(KeyOf(1)), std::nullopt);
}

TEST(BlockPoolTest, TheBlockUnusedForLongestIsForgottenFirst) {
  BlockPool pool(3);
  for (int i = 0; i < 3; ++i) pool.Publish(pool.Allocate(), KeyOf(i));
  for (int block : {1, 0, 2}) pool.Release(block);
  ASSERT_EQ(pool.Acquire(KeyOf(1)), 1);  // Used again.
  pool.Release(1);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 2);
  EXPECT_EQ(pool.Allocate(), 1);
}

TEST(BlockPoolTest, OfTwoBlocksWithOneKeyTheFirstStays) {
  BlockPool pool(2);
  pool.Publish(pool.Allocate(), KeyOf(7));
  pool.Publish(pool.Allocate(), KeyOf(7));
  pool.Release(0);
  pool.Release(1);
  EXPECT_EQ(pool.Acquire(KeyOf(7)), 0);
  EXPECT_EQ(pool.Allocate(), 1);
}

class NaivePool {
 public:
  explicit NaivePool(int32_t blocks) : blocks_(blocks) {
    for (int32_t block = 0; block < blocks; ++block) free_.push_front(block);
  }

  int32_t available() const { return blocks_ - static_cast<int32_t>(owners_.size()); }
  int32_t owners(int32_t block) const { return owners_.contains(block) ? owners_.at(block) : 0; }
  const std::map<int32_t, int32_t>& all_owners() const { return owners_; }

  int32_t Allocate() {
    std::deque<int32_t>& from = free_.empty() ? cached_ : free_;
    const int32_t block = free_.empty() ? from.front() : from.back();
    free_.empty() ? from.pop_front() : from.pop_back();
    keys_.erase(block);
    owners_[block] = 1;
    return block;
  }
  std::optional<int32_t> Acquire(const BlockKey& key) {
    for (const auto& [block, held] : keys_) {
      if (held != key) continue;
      std::erase(cached_, block);
      ++owners_[block];
      return block;
    }
    return std::nullopt;
  }
  bool HasKey(int32_t block) const { return keys_.contains(block); }
  void Publish(int32_t block, const BlockKey& key) {
    const bool known = std::ranges::any_of(keys_, [&](const auto& e) { return e.second == key; });
    if (!known) keys_[block] = key;
  }
  void Release(int32_t block) {
    if (--owners_[block] > 0) return;
    owners_.erase(block);
    (keys_.contains(block) ? cached_ : free_).push_back(block);
  }

 private:
  int32_t blocks_;
  std::deque<int32_t> free_;
  std::deque<int32_t> cached_;  // Longest without owner first.
  std::map<int32_t, int32_t> owners_;
  std::map<int32_t, BlockKey> keys_;
};

class PoolComparison {
 public:
  PoolComparison(uint32_t seed, int32_t blocks)
      : random_(seed), pool_(blocks), naive_(blocks), keys_(1 + random_() % (2 * blocks)) {}

  void Step() {
    const BlockKey key = KeyOf(static_cast<int>(random_() % keys_));
    const int32_t owned = PickOwned();
    switch (random_() % 4) {
      case 0:
        if (naive_.available() > 0) {
          ASSERT_EQ(pool_.Allocate(), naive_.Allocate());
        }
        break;
      case 1:
        ASSERT_EQ(pool_.Acquire(key), naive_.Acquire(key));
        break;
      case 2:
        if (owned < 0 || naive_.HasKey(owned)) break;
        pool_.Publish(owned, key);
        naive_.Publish(owned, key);
        break;
      default:
        if (owned < 0) break;
        pool_.Release(owned);
        naive_.Release(owned);
    }
    ASSERT_EQ(pool_.available(), naive_.available());
    for (int32_t block = 0; block < pool_.blocks(); ++block) {
      ASSERT_EQ(pool_.owners(block), naive_.owners(block));
    }
  }

 private:
  int32_t PickOwned() {
    const auto& owners = naive_.all_owners();
    if (owners.empty()) return -1;
    return std::next(owners.begin(), random_() % owners.size())->first;
  }

  std::mt19937 random_;
  BlockPool pool_;
  NaivePool naive_;
  uint32_t keys_;
};

TEST(BlockPoolTest, BehavesLikeTheNaiveModel) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    PoolComparison comparison(seed, 1 + static_cast<int32_t>(seed * 7 % 40));
    for (int step = 0; step < 5000; ++step) ASSERT_NO_FATAL_FAILURE(comparison.Step()) << step;
  }
}

TEST(BlockPoolDeathTest, RefusesToFreeTwiceToGiveWhatIsNotThereAndToPublishTwice) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "broken invariant");
  EXPECT_DEATH(pool.Publish(0, KeyOf(0)), "broken invariant");
  pool.Publish(pool.Allocate(), KeyOf(0));
  EXPECT_DEATH(pool.Publish(0, KeyOf(1)), "broken invariant");
  EXPECT_DEATH(pool.Allocate(), "broken invariant");
}

}  // namespace
}  // namespace structattn::engine
