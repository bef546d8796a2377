// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror and Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011). Stateless: the same key and counter give the same
// numbers in any order of calls.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_PHILOX_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace structattn::engine {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Names one random draw of one request.
struct DrawId {
  uint64_t seed;
  uint32_t continuation;  // Number of the sample; the branches of a request draw the same numbers.
  uint32_t token;         // Index of the generated token.
};

// Uniform in [0, 1), a multiple of 2^-53.
double UniformDraw(const DrawId& id);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_PHILOX_H_
