// What the parts of the emulator share during a launch: who runs, when, and where findings go.
// Owned by Machine (machine.h); decides nothing.
#ifndef STRUCTATTN_TESTS_SIMT_CONTEXT_H_
#define STRUCTATTN_TESTS_SIMT_CONTEXT_H_

#include <array>
#include <cstdint>
#include <map>
#include <source_location>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/simt/simt.h"

namespace structattn::simt {

// A call in a kernel's source.
using Place = std::source_location;

std::string ToString(Place place);

inline constexpr int kLanes = 32;
inline constexpr int kMaxThreads = 1024;

// Time, counted in barrier intervals over the whole process: a block's first interval and every
// barrier begin a new one. BlockBarrier takes in all threads of a block and nothing else orders
// memory, so all of a block's threads always agree on who is before whom: of two accesses in one
// block, those in different intervals are ordered and those of different threads in the same one
// are not. A vector clock would hold this one number in every entry. Blocks run one after another
// here, but are never ordered: an interval before `block_first` is another block's.
struct Clock {
  uint32_t launch_first = 0;
  uint32_t block_first = 0;
  uint32_t now = 0;
};

// One side of a finding.
struct Party {
  int thread;
  Place place;
};

class ReportList {
 public:
  // The first of its kind, kernel and places is kept, others are counted.
  void Add(Report report);
  std::vector<Report> Take();

 private:
  std::map<std::tuple<ReportKind, std::string, std::vector<std::string>>, size_t> index_;
  std::vector<Report> reports_;
};

// Thrown through the fiber of a thread that shall not go on: no thread of its block will.
struct Abandoned {};

struct Context {
  const char* kernel = "";
  std::array<int, 3> block = {};
  int thread = 0;  // The running one.
  Clock clock;
  LaunchCounts counts;
  ReportList reports;
  // A kernel that loops over what it must not read would never end.
  static constexpr int64_t kMostReports = 100000;
  int64_t reports_left = kMostReports;  // Of this launch.

  // Throws Abandoned when none are left.
  void Add(ReportKind kind, std::vector<Party> parties, std::string detail);
};

// The last access of one kind to a byte.
struct LastAccess {
  Place place;
  uint32_t interval;  // 0: never.
  uint16_t thread;    // Or one of the two below, which equal no thread.
};
inline constexpr uint16_t kSeveralThreads = 0xffff;  // In that interval.
inline constexpr uint16_t kSeveralBlocks = 0xfffe;   // In that launch.

// All zero at first.
struct ShadowByte {
  LastAccess write;
  LastAccess read;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_CONTEXT_H_
