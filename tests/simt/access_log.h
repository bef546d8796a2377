// Puts the accesses of a warp's lanes together again into instructions, and counts what memory does
// for each: wavefronts of shared memory, sectors of global memory. Used by Machine, which flushes
// at every collective and barrier; judges nothing but its numbers.
#ifndef STRUCTATTN_TESTS_SIMT_ACCESS_LOG_H_
#define STRUCTATTN_TESTS_SIMT_ACCESS_LOG_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/simt/context.h"

namespace structattn::simt {

enum class AccessKind : uint8_t { kSharedLoad, kSharedStore, kCopy, kGlobalLoad, kGlobalStore };

struct LoggedAccess {
  uint64_t address;  // Or offset in shared memory.
  Place place;
  AccessKind kind;
  uint8_t size;
};

// Wavefronts that shared memory needs for one instruction of up to 32 lanes, `size` bytes each, in
// phases of 128 bytes: 32, 16 or 8 lanes. A phase takes as many wavefronts as the busiest of the 32
// four-byte banks has different words.
Wavefronts CountWavefronts(std::span<const uint64_t> offsets, int size);

// One warp's accesses since its last collective or barrier.
class AccessLog {
 public:
  void Add(int lane, const LoggedAccess& access) { lanes_[lane].push_back(access); }
  // Counts them and forgets them.
  void Flush(LaunchCounts& counts);

 private:
  bool Uniform() const;
  void FlushUniform(LaunchCounts& counts);
  void FlushDivergent(LaunchCounts& counts);

  std::array<std::vector<LoggedAccess>, kLanes> lanes_;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_ACCESS_LOG_H_
