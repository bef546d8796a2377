// BlockPool against a naive model: a map from block to number of owners.
#include "server/engine/block_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace structattn {
namespace {

TEST(BlockPoolTest, GivesEveryBlockOnceAndReusesTheWarmestFirst) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 1);
  EXPECT_EQ(pool.Allocate(), 2);
  EXPECT_EQ(pool.free_blocks(), 0);
  pool.Release(0);
  pool.Release(2);
  EXPECT_EQ(pool.Allocate(), 2);
}

TEST(BlockPoolTest, SharedBlockIsFreeWhenItsLastOwnerGoes) {
  BlockPool pool(1);
  const int32_t block = pool.Allocate();
  pool.Share(block);
  pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 0);
  pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 1);
}

TEST(BlockPoolTest, BehavesLikeTheNaiveModel) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int32_t blocks = 1 + random() % 40;
    BlockPool pool(blocks);
    std::map<int32_t, int32_t> owners;  // Blocks in use.
    for (int step = 0; step < 5000; ++step) {
      const auto pick = [&] { return std::next(owners.begin(), random() % owners.size()); };
      switch (random() % 3) {
        case 0:
          if (pool.free_blocks() > 0) {
            const int32_t block = pool.Allocate();
            ASSERT_TRUE(0 <= block && block < blocks);
            ASSERT_TRUE(owners.emplace(block, 1).second) << "block " << block << " was in use";
          }
          break;
        case 1:
          if (!owners.empty() && random() % 2 == 0) {
            const auto owner = pick();
            pool.Share(owner->first);
            ++owner->second;
          }
          break;
        default:
          if (!owners.empty()) {
            const auto owner = pick();
            pool.Release(owner->first);
            if (--owner->second == 0) owners.erase(owner);
          }
      }
      ASSERT_EQ(pool.free_blocks(), blocks - static_cast<int32_t>(owners.size()));
      for (int32_t block = 0; block < blocks; ++block) {
        const auto owner = owners.find(block);
        ASSERT_EQ(pool.references(block), owner == owners.end() ? 0 : owner->second);
      }
    }
  }
}

TEST(BlockPoolDeathTest, RefusesToFreeTwiceAndToGiveWhatIsNotThere) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "broken invariant");
  EXPECT_DEATH(pool.Share(0), "broken invariant");
  pool.Allocate();
  EXPECT_DEATH(pool.Allocate(), "broken invariant");
}

}  // namespace
}  // namespace structattn
