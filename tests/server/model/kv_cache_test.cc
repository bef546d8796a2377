// KV memory: how many blocks fit, what is refused, and that untouched blocks cost no memory.
#include "server/model/kv_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>

namespace structattn {
namespace {

constexpr int64_t kBlockBytes = 2 * 3 * 4 * 32 * 16 * 2;  // Keys and values of the shape below.

KvCacheParams Shape() {
  return {.layers = 3,
          .kv_heads = 4,
          .head_dim = 32,
          .block_size = 16,
          .dtype = DType::kBfloat16,
          .device = {},
          .memory_bytes = 10 * kBlockBytes};
}

int64_t ResidentBytes() {
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

TEST(KvCacheTest, HoldsAsManyWholeBlocksAsFit) {
  KvCacheParams params = Shape();
  EXPECT_EQ(*CountKvBlocks(params), 10);
  params.memory_bytes -= 1;
  EXPECT_EQ(*CountKvBlocks(params), 9);
  params.dtype = DType::kFloat32;
  EXPECT_EQ(*CountKvBlocks(params), 4);
}

TEST(KvCacheTest, RefusesMemoryBelowOneBlockByNumbers) {
  KvCacheParams params = Shape();
  params.memory_bytes = kBlockBytes - 1;
  const absl::Status status = CountKvBlocks(params).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "KV memory of 24575 bytes: one block of 16 tokens takes 24576 bytes");
  params.memory_bytes = -1;
  EXPECT_FALSE(AllocateKvCache(params).ok());
}

TEST(KvCacheTest, RefusesSizesThatAreNotPositiveOrOverflow) {
  for (int64_t bad : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::max() / 4}) {
    KvCacheParams params = Shape();
    params.layers = bad;
    EXPECT_EQ(CountKvBlocks(params).status().code(), absl::StatusCode::kFailedPrecondition);
    params = Shape();
    params.head_dim = bad;
    EXPECT_EQ(CountKvBlocks(params).status().code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST(KvCacheTest, ViewsAreDistinctWritableAndOfTheShape) {
  const KvCache cache = *AllocateKvCache(Shape());
  EXPECT_EQ(cache.shape.capacity_tokens(), 160);
  ASSERT_EQ(cache.layers.size(), 3u);
  const size_t bytes = 10 * kBlockBytes / 6;
  int fill = 1;
  for (const KvLayerView& view : cache.layers) {
    EXPECT_EQ(view.block_size, 16);
    EXPECT_EQ(view.kv_heads, 4);
    EXPECT_EQ(view.head_dim, 32);
    std::memset(view.key, fill++, bytes);
    std::memset(view.value, fill++, bytes);
  }
  fill = 1;
  for (const KvLayerView& view : cache.layers) {
    for (const void* memory : {view.key, view.value}) {
      const auto* begin = static_cast<const unsigned char*>(memory);
      for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(begin[i], fill);
      ++fill;
    }
  }
}

TEST(KvCacheTest, ResidentMemoryDoesNotGrowBeforeUse) {
  KvCacheParams params = Shape();
  params.memory_bytes = int64_t{1} << 30;
  const int64_t before = ResidentBytes();
  const KvCache cache = *AllocateKvCache(params);
  EXPECT_LT(ResidentBytes() - before, int64_t{16} << 20);
}

}  // namespace
}  // namespace structattn
