// The emulated multiprocessor. It runs a launch one thread block after another with a fiber for
// each thread, and carries out what device.h asks for. Tests never see it; they have simt.h.
#ifndef STRUCTATTN_TESTS_SIMT_MACHINE_H_
#define STRUCTATTN_TESTS_SIMT_MACHINE_H_

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/cuda/launch_shape.h"
#include "tests/simt/access_log.h"
#include "tests/simt/context.h"
#include "tests/simt/fibers.h"
#include "tests/simt/fragments.h"
#include "tests/simt/global_memory.h"
#include "tests/simt/shared_memory.h"

namespace structattn::simt {

struct Launch {
  const char* kernel;
  int threads;  // Threads of a thread block, a multiple of 32.
  int max_shared_bytes;
  LaunchShape shape;
  void (*run)(const void* params);  // The kernel's body, for the running thread.
  const void* params;
};

enum class Collective : uint8_t { kShuffle, kLoadMatrices, kLoadMatricesTransposed, kMultiply };

class Machine {
 public:
  static Machine& Get();

  // Runs all thread blocks. Throws std::runtime_error when a device would refuse the launch.
  void Run(const Launch& launch);

  // ---- For the running thread.
  int thread() const { return context_.thread; }
  int block(int dimension) const { return context_.block[dimension]; }

  template <typename V>
  V LoadGlobal(const V* from, Place place) {
    static_assert(std::is_trivially_copyable_v<V> && sizeof(V) <= 16);
    V value;
    global_.Read(from, sizeof(V), place, &value);
    context_.counts.global_loaded_bytes += sizeof(V);
    Log({reinterpret_cast<uintptr_t>(from), place, AccessKind::kGlobalLoad, sizeof(V)});
    return value;
  }
  template <typename V>
  void StoreGlobal(V* to, const V& value, Place place) {
    static_assert(std::is_trivially_copyable_v<V> && sizeof(V) <= 16);
    global_.Write(to, sizeof(V), place, &value);
    context_.counts.global_stored_bytes += sizeof(V);
    Log({reinterpret_cast<uintptr_t>(to), place, AccessKind::kGlobalStore, sizeof(V)});
  }
  template <typename V>
  V LoadShared(int offset, Place place) {
    static_assert(std::is_trivially_copyable_v<V> && sizeof(V) <= 16);
    V value;
    shared_.Read(offset, sizeof(V), place, &value, thread());
    context_.counts.shared_loaded_bytes += sizeof(V);
    Log({static_cast<uint64_t>(offset), place, AccessKind::kSharedLoad, sizeof(V)});
    return value;
  }
  template <typename V>
  void StoreShared(int offset, const V& value, Place place) {
    static_assert(std::is_trivially_copyable_v<V> && sizeof(V) <= 16);
    shared_.Write(offset, sizeof(V), place, &value);
    context_.counts.shared_stored_bytes += sizeof(V);
    Log({static_cast<uint64_t>(offset), place, AccessKind::kSharedStore, sizeof(V)});
  }

  void CopyAsync16(int offset, const void* from, bool valid, Place place);
  void CommitCopies() { ++own().committed; }
  // Ends the copies of all but the newest `commits` commits.
  void WaitCopies(int commits);

  void Barrier(Place place);

  // Every lane of a warp gives a `Lane`. The last to arrive calls execute(lanes), and then each
  // lane continues with what was left in its own.
  template <typename Lane, typename Execute>
  void Collect(Collective kind, Place place, Lane* mine, const Execute& execute) {
    Warp& warp = warps_[thread() / kLanes];
    warp.lanes[thread() % kLanes] = mine;
    if (!Arrive(warp, kind, place)) return;  // The last lane has executed.
    std::array<Lane*, kLanes> lanes;
    for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<Lane*>(warp.lanes[i]);
    execute(lanes);
    Release(warp);
  }
  void LoadMatrices(int offset, bool transposed, Place place, uint32_t (&m)[4]);
  template <typename T>
  void Multiply(Multiplication mine, Place place) {
    Collect(Collective::kMultiply, place, &mine, [&](const auto& lanes) {
      simt::MultiplyAccumulate<T>(lanes);
      ++context_.counts.multiply_accumulates;
    });
  }
  template <typename V>
  V ShuffleXor(V value, int mask, Place place) {
    struct Lane {
      V value;
      int mask;
      V result;
    } mine = {value, mask, value};
    Collect(Collective::kShuffle, place, &mine, [&](const auto& lanes) {
      for (int i = 0; i < kLanes; ++i) {  // A lane outside the warp keeps its value.
        const int from = i ^ lanes[i]->mask;
        if (from >= 0 && from < kLanes) lanes[i]->result = lanes[from]->value;
      }
      ++context_.counts.shuffles;
    });
    return mine.result;
  }

  // ---- For simt.h.
  GlobalMemory& global() { return global_; }
  void SetSeed(uint64_t seed);
  std::vector<Report> TakeReports();
  std::vector<LaunchCounts> TakeLaunches();

 private:
  struct Copy {
    int offset;
    const void* from;  // Null stands for zeros.
    int64_t commits;   // The thread's commits before it.
    Place place;
  };
  enum class State : uint8_t { kRunnable, kAtCollective, kAtBarrier, kExited };
  struct Thread {
    State state = State::kRunnable;
    Place place;  // The thread waits here.
    int64_t committed = 0;
    std::vector<Copy> copies;  // The copies under way, oldest first.
  };
  struct Warp {
    std::array<void*, kLanes> lanes;
    int waiting = 0;  // So many lanes wait at the collective below.
    Collective kind;
    Place place;
    int exited = 0;
    AccessLog log;
  };

  Machine() = default;

  Thread& own() { return threads_[thread()]; }
  void Log(const LoggedAccess& access) {
    warps_[thread() / kLanes].log.Add(thread() % kLanes, access);
  }

  void BeginLaunch(const Launch& launch);
  void BeginBlock(const Launch& launch, uint32_t block);
  // Runs one thread block. Returns false after a report that ends the launch.
  bool RunBlock(const Launch& launch);
  // Ends the running thread.
  void Exit();
  // Returns true for the last lane to arrive, at once, and false for others, when they may
  // continue.
  bool Arrive(Warp& warp, Collective kind, Place place);
  void Release(Warp& warp);
  void Wait(State state, Place place);
  // Reports that the running thread is at `here` while others wait, and ends the launch.
  [[noreturn]] void ReportDivergence(ReportKind kind, const std::string& here, Place place);
  // Where every thread of [begin, end) waits.
  std::string WhereThreadsWait(int begin, int end) const;
  void ReportDeadlock();
  void CheckBankConflicts(const std::array<MatrixLoad*, kLanes>& lanes, Place place);

  Context context_;
  SharedMemory shared_{&context_};
  GlobalMemory global_{&context_};
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<LaunchCounts> launches_;
  int block_threads_ = 0;
  int at_barrier_ = 0;
  Place barrier_place_;
  int exited_ = 0;
  Fibers fibers_;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_MACHINE_H_
