// Philox against the known answers that its authors publish (Random123, kat_vectors).
#include "server/engine/sampling/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>

namespace structattn::engine {
namespace {

using Words = std::array<uint32_t, 4>;

TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, DrawsAreUniformAndDifferInEveryPartOfTheirName) {
  constexpr int kDraws = 20000;
  double sum = 0.0;
  double squares = 0.0;
  for (uint32_t token = 0; token < kDraws; ++token) {
    const double draw = UniformDraw({.seed = 7, .continuation = 0, .token = token});
    ASSERT_TRUE(0.0 <= draw && draw < 1.0);
    sum += draw;
    squares += draw * draw;
  }
  // Standard errors of mean and second moment; five of them are never seen by chance.
  EXPECT_NEAR(sum / kDraws, 1.0 / 2.0, 5 * std::sqrt(1.0 / 12.0 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3.0, 5 * std::sqrt(4.0 / 45.0 / kDraws));
  const std::set<double> draws = {UniformDraw({7, 0, 0}), UniformDraw({8, 0, 0}),
                                  UniformDraw({7, 1, 0}), UniformDraw({7, 0, 1}),
                                  UniformDraw({uint64_t{7} << 32, 0, 0})};
  EXPECT_EQ(draws.size(), 5u);
}

}  // namespace
}  // namespace structattn::engine
