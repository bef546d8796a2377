// The host emulator of the CUDA kernels, as its users see it: tests of kernels, and programs that
// serve on emulated kernels. It runs the kernels' sources (*.cu, *.cuh) on fibers, checks every
// access, and never guesses. What it finds is collected as reports, and a test expects none.
//
// How to use it:
// - Link `structattn_emulated` into the executable itself (it is an OBJECT library). That defines
//   EmulatedCudaOps(), so that KernelContext{.device = DeviceKind::kEmulated} launches run here and
//   CudaOpsFor(DeviceKind::kEmulated) has the launchers. A launch runs on the calling thread, one
//   at a time in the process, and is done when it returns.
// - Register what kernels may touch. Tests make `simt::Memory` objects that live as long as the
// buffer.
//   An allocator calls RegisterMemory and UnregisterMemory, from any thread, outside launches or
//   beside them. Everything else is out of bounds. Registered ranges must not overlap; register the
//   smallest range that is meant, so that an access past it is found. Read-only ranges are cheaper,
//   because they have no races.
// - SetSeed(seed) before a launch decides the order of thread blocks and threads, of it and of all
// that
//   follow. One seed gives one order, so run each case with several (kSeeds).
// - TakeReports() after it empties the list: `EXPECT_EQ(simt::Describe(simt::TakeReports()), "")`.
// - TakeLaunches() after it gives exact counts per launch, in order.
// - A launch that the device would refuse throws std::runtime_error, like the device's.
#ifndef STRUCTATTN_TESTS_SIMT_SIMT_H_
#define STRUCTATTN_TESTS_SIMT_SIMT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace structattn::simt {

// ---- Memory that kernels may touch.
enum class Access { kReadOnly, kWritable };

void RegisterMemory(const void* begin, size_t bytes, Access access);
// Ends the registration of the range with this first byte. Does nothing for any other pointer.
void UnregisterMemory(const void* begin);

class Memory {
 public:
  Memory(const void* begin, size_t bytes, Access access) : begin_(bytes == 0 ? nullptr : begin) {
    if (begin_ != nullptr) RegisterMemory(begin_, bytes, access);
  }
  ~Memory() {
    if (begin_ != nullptr) UnregisterMemory(begin_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

 private:
  const void* begin_;
};

// Registers the elements of a container: vector, array, span.
template <typename Container>
Memory ReadOnly(const Container& elements) {
  return Memory(elements.data(), elements.size() * sizeof(*elements.data()), Access::kReadOnly);
}
template <typename Container>
Memory Writable(Container& elements) {
  return Memory(elements.data(), elements.size() * sizeof(*elements.data()), Access::kWritable);
}

// ---- Schedules.
inline constexpr uint64_t kSeeds[] = {1, 2, 3};

void SetSeed(uint64_t seed);

// ---- Reports.
enum class ReportKind {
  kSharedRace,           // Two threads accessed a shared byte in one barrier interval; one wrote.
  kGlobalRace,           // The same in global memory, or in different thread blocks.
  kCopyRace,             // A copy went into bytes that another thread accessed in this interval.
  kPendingCopyRead,      // Copied bytes were read before the copying thread waited.
  kPendingCopyWrite,     // They were written, or copied to again, before that.
  kUninitializedRead,    // Shared memory was read that nothing had written.
  kSharedBounds,         //
  kSharedMisaligned,     //
  kGlobalBounds,         // An access was not wholly within one registered range.
  kGlobalMisaligned,     //
  kReadOnlyWrite,        // A range was written that is registered read-only.
  kBankConflict,         // LoadMatrices took more than one wavefront for a matrix.
  kDivergentCollective,  // Lanes of a warp were at different collectives, or one had exited.
  kBarrierDivergence,    // Threads of a thread block were at different barriers, or one had exited.
  kDeadlock,             // No thread could continue.
  kPendingCopyAtExit,    // A thread exited without waiting for its copies.
};

std::string_view Name(ReportKind kind);

// What was found, where it was first found, and how often at the same places of the same kernel.
struct Report {
  ReportKind kind;
  std::string kernel;
  std::array<int, 3> block;
  std::vector<int> threads;         // The thread that was running comes first.
  std::vector<std::string> places;  // Their places, as file:line.
  std::string detail;
  int64_t times = 1;
};

std::vector<Report> TakeReports();

// The reports with one line each; empty for none.
std::string Describe(std::span<const Report> reports);

// ---- Counts.

// The wavefronts of one kind of access to shared memory. A wavefront is what the 32 banks deliver
// at once; `ideal` is what the same accesses take without bank conflicts (1 a matrix of
// LoadMatrices; 1, 2 or 4 an instruction of 4, 8 or 16 bytes a lane). Lanes of a warp that execute
// the same place for the same time since the warp's last collective or barrier are one instruction.
struct Wavefronts {
  int64_t actual = 0;
  int64_t ideal = 0;
};

struct LaunchCounts {
  std::string kernel;
  int64_t blocks = 0;
  int64_t threads = 0;              // Threads of a thread block.
  int64_t shared_bytes = 0;         // What a thread block was launched with.
  int64_t global_loaded_bytes = 0;  // LoadGlobal and valid copies asked for them; no cache counts.
  int64_t global_stored_bytes = 0;  //
  int64_t global_loaded_sectors = 0;   // 32 bytes each, counted once within an instruction.
  int64_t global_stored_sectors = 0;   //
  int64_t shared_loaded_bytes = 0;     // LoadShared and LoadMatrices.
  int64_t shared_stored_bytes = 0;     // StoreShared and copies.
  int64_t copies = 0;                  // Valid copies of 16 bytes.
  int64_t zero_fills = 0;              // Copies that were not valid.
  int64_t matrix_loads = 0;            // LoadMatrices of a warp, with four matrices each.
  int64_t multiply_accumulates = 0;    // MultiplyAccumulate of a warp, 16 x 8 x 16 each.
  int64_t shuffles = 0;                // Counted once a warp.
  int64_t barriers = 0;                // Counted once a thread block.
  Wavefronts matrix_load_wavefronts;   //
  Wavefronts shared_load_wavefronts;   // LoadShared.
  Wavefronts shared_store_wavefronts;  // StoreShared.
  Wavefronts copy_wavefronts;          // CopyAsync16.
};

std::vector<LaunchCounts> TakeLaunches();

// False where the tests run on a GPU (tests/gpu), which counts nothing.
bool CountsWork();

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_SIMT_H_
