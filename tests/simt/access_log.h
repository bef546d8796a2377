// Puts the accesses of a warp's lanes together again into instructions, and counts what memory does
// for each: wavefronts of shared memory, sectors of global memory. Every collective and barrier
// flushes it. It reports no faults.
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
  uint64_t address;  // In shared memory it is the offset.
  Place place;
  AccessKind kind;
  uint8_t size;
};

// The wavefronts that shared memory needs for one instruction of up to 32 lanes with `size` bytes
// each. The lanes go in phases of 128 bytes, which are 32, 16 or 8 lanes, and a phase takes as many
// wavefronts as the busiest of the 32 four-byte banks has different words.
Wavefronts CountWavefronts(std::span<const uint64_t> offsets, int size);

// One warp's accesses since its last collective or barrier.
class AccessLog {
 public:
  void Add(int lane, const LoggedAccess& access) { lanes_[lane].push_back(access); }
  // Counts the accesses and forgets them.
  void Flush(LaunchCounts& counts);

 private:
  bool Uniform() const;
  void FlushUniform(LaunchCounts& counts);
  void FlushDivergent(LaunchCounts& counts);

  std::array<std::vector<LoggedAccess>, kLanes> lanes_;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_ACCESS_LOG_H_
