// WeightArena: what it hands out is aligned, apart from everything else, and outlives it.
#include "kernels/weight_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <random>
#include <vector>

// The address sanitizer, where it is on, ends the program on a huge allocation unless told not to.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace structattn {
namespace {

constexpr int64_t kMegabyte = int64_t{1} << 20;

struct Piece {
  std::shared_ptr<void> memory;
  int64_t bytes;
  int fill;

  bool Intact() const {
    const unsigned char* at = static_cast<const unsigned char*>(memory.get());
    for (int64_t i = 0; i < bytes; ++i) {
      if (at[i] != fill) return false;
    }
    return true;
  }
};

TEST(WeightArenaTest, PiecesAreAlignedAndApartAndOutliveTheArena) {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::optional<WeightArena> arena(std::in_place);
  std::vector<Piece> pieces;
  for (int i = 0; i < 60; ++i) {
    const int64_t bytes = 1 + random() % (i % 10 == 0 ? 5 * kMegabyte : 100000);
    pieces.push_back({arena->Allocate(bytes), bytes, i});
    std::memset(pieces.back().memory.get(), i, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pieces.back().memory.get()) % 64, 0u);
  }
  arena.reset();
  for (size_t i = 0; i < pieces.size(); i += 2) pieces[i].memory.reset();
  for (size_t i = 1; i < pieces.size(); i += 2) EXPECT_TRUE(pieces[i].Intact()) << i;
}

TEST(WeightArenaTest, SmallPiecesShareHugePages) {
  WeightArena arena;
  const auto first = arena.Allocate(1000);
  const auto second = arena.Allocate(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.get()) % (2 * kMegabyte), 0u);
  EXPECT_EQ(static_cast<char*>(second.get()) - static_cast<char*>(first.get()), 1024);
}

TEST(WeightArenaTest, APieceMayBeLargerThanAnyChunk) {
  WeightArena arena;
  const auto small = arena.Allocate(10);
  const int64_t bytes = 200 * kMegabyte + 1;
  const auto large = arena.Allocate(bytes);
  static_cast<char*>(large.get())[bytes - 1] = 1;
  // The rest of its last huge page is for the next one.
  const auto next = arena.Allocate(64);
  EXPECT_EQ(static_cast<char*>(next.get()) - static_cast<char*>(large.get()), 200 * kMegabyte + 64);
  EXPECT_NE(small, nullptr);
}

TEST(WeightArenaTest, MoreThanThereIsThrows) {
  WeightArena arena;
  EXPECT_THROW(arena.Allocate(int64_t{1} << 60), std::bad_alloc);
  EXPECT_NE(arena.Allocate(10), nullptr);
}

}  // namespace
}  // namespace structattn
