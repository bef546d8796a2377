// Implements philox.h. Multipliers and key increments are the paper's (the increments: fractions of
// the golden ratio and of the square root of 3, in 32 bits).
#include "server/engine/sampling/philox.h"

namespace structattn::engine {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kKeyStep0 = 0x9E3779B9;
  constexpr uint32_t kKeyStep1 = 0xBB67AE85;
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kKeyStep0;
    key[1] += kKeyStep1;
  }
  return counter;
}

double UniformDraw(const DrawId& id) {
  const std::array<uint32_t, 4> bits =
      Philox4x32({id.token, id.continuation, 0, 0},
                 {static_cast<uint32_t>(id.seed), static_cast<uint32_t>(id.seed >> 32)});
  const uint64_t wide = (static_cast<uint64_t>(bits[0]) << 32) | bits[1];
  return static_cast<double>(wide >> 11) * 0x1p-53;
}

}  // namespace structattn::engine
