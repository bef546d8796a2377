// What the files of the emulator share during a launch: the running thread, the time, and where
// findings go. Decides nothing.
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

// Time, counted in barrier intervals over the whole process. A thread block's first interval and
// every barrier begin a new one. BlockBarrier takes in all threads of a thread block and nothing
// else orders memory, so all of its threads always agree on the order: of two accesses in one
// thread block, those in different intervals are ordered, and those of different threads in the
// same one are not. A vector clock would hold this one number in every entry. Thread blocks run one
// after another here, but are never ordered: an interval before `block_first` is another thread
// block's.
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
  // Keeps the first report of its kind, kernel and places, and counts the others.
  void Add(Report report);
  std::vector<Report> Take();

 private:
  std::map<std::tuple<ReportKind, std::string, std::vector<std::string>>, size_t> index_;
  std::vector<Report> reports_;
};

// Thrown through the fiber of a thread that must end, as all threads of its thread block then do.
struct Abandoned {};

struct Context {
  const char* kernel = "";
  std::array<int, 3> block = {};
  int thread = 0;  // The running thread.
  Clock clock;
  LaunchCounts counts;
  ReportList reports;
  // Without a limit, a kernel that loops over what it must not read would never end.
  static constexpr int64_t kMostReports = 100000;
  int64_t reports_left = kMostReports;  // This launch may have so many more.

  // Throws Abandoned when none are left.
  void Add(ReportKind kind, std::vector<Party> parties, std::string detail);
};

// The last access of one kind to a byte.
struct LastAccess {
  Place place;
  uint32_t interval;  // 0 stands for never.
  uint16_t thread;    // A thread, or one of the two numbers below, which equal no thread.
};
inline constexpr uint16_t kSeveralThreads = 0xffff;  // Several threads in that interval.
inline constexpr uint16_t kSeveralBlocks = 0xfffe;   // Several thread blocks in that launch.

// All bytes of it are zero at first.
struct ShadowByte {
  LastAccess write;
  LastAccess read;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_CONTEXT_H_
