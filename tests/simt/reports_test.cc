// The test of the tests: each kind of fault in a tiny kernel is reported, by its kind and place, in
// every schedule, and its correct twin is not.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "tests/simt/simt.h"

namespace structattn::emulated {
namespace {

using simt::ReportKind;
using enum simt::ReportKind;

constexpr int kBlocks = 2;
constexpr int kTinyThreads = 64;
constexpr int kTinyBytes = 1024;
constexpr int kElements = kBlocks * kTinyThreads;

struct TinyParams {
  bool faulty;
  const float* input;  // [kElements], read-only.
  float* output;       // [kElements]
};

struct Tiny {
  using Params = TinyParams;
  static constexpr const char* kName = "tiny";
  static constexpr int kThreads = kTinyThreads;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = kTinyBytes;

  static int Index() { return BlockX() * kThreads + ThreadIndex(); }
  static int Other() { return ThreadIndex() ^ 33; }  // A thread in the other warp.
  static void FillShared() {
    StoreShared(ThreadIndex() * 16, uint4{});
    BlockBarrier();
  }
};

// ---- Shared memory.
struct ReadWithoutBarrier : Tiny {
  static void Run(const Params& p) {
    FillShared();
    StoreShared(ThreadIndex() * 4, 1.0f);
    if (!p.faulty) BlockBarrier();
    StoreGlobal(p.output + Index(), LoadShared<float>(Other() * 4));
  }
};
struct TwoWriters : Tiny {
  static void Run(const Params& p) {
    StoreShared(p.faulty ? ThreadIndex() / 2 * 4 : ThreadIndex() * 4, 1.0f);
  }
};
struct OverwriteWithoutBarrier : Tiny {
  static void Run(const Params& p) {
    StoreShared(ThreadIndex() * 4, 1.0f);
    BlockBarrier();
    const float value = LoadShared<float>(Other() * 4);
    if (!p.faulty) BlockBarrier();
    StoreShared(ThreadIndex() * 4, value + 1.0f);
  }
};
struct LockstepForBarrier : Tiny {  // Only a shuffle is between two accesses in one warp.
  static void Run(const Params& p) {
    StoreShared(ThreadIndex() * 4, 1.0f);
    ShuffleXor(0, 1);
    if (!p.faulty) BlockBarrier();
    StoreGlobal(p.output + Index(), LoadShared<float>((ThreadIndex() ^ 1) * 4));
  }
};
struct OverlappingBytes : Tiny {  // One byte in common is enough.
  static void Run(const Params& p) {
    if (ThreadIndex() == 0) StoreShared(0, uint4{});
    if (ThreadIndex() == 40) StoreShared<uint8_t>(p.faulty ? 15 : 16, 0);
  }
};
struct ReadUninitialized : Tiny {
  static void Run(const Params& p) {
    StoreShared(ThreadIndex() * 4, 1.0f);
    BlockBarrier();
    LoadShared<float>(p.faulty && ThreadIndex() == 9 ? 512 : Other() * 4);
  }
};
struct SharedPastEnd : Tiny {
  static void Run(const Params& p) {
    StoreShared(kTinyBytes - kThreads * 4 + ThreadIndex() * 4 + (p.faulty ? 4 : 0), 1.0f);
  }
};
struct SharedBeforeBegin : Tiny {
  static void Run(const Params& p) {
    if (ThreadIndex() == 0) StoreShared(p.faulty ? -4 : 0, 1.0f);
  }
};
struct SharedOdd : Tiny {
  static void Run(const Params& p) {
    if (ThreadIndex() == 0) StoreShared(p.faulty ? 8 : 16, uint4{});
  }
};

// ---- Global memory.
struct StoredTwice : Tiny {
  static void Run(const Params& p) {
    StoreGlobal(p.output + (p.faulty ? Index() / 2 : Index()), 1.0f);
  }
};
struct StoredByTwoBlocks : Tiny {
  static void Run(const Params& p) {
    BlockBarrier();
    StoreGlobal(p.output + (p.faulty ? ThreadIndex() : Index()), 1.0f);
  }
};
struct ReadOfOtherBlock : Tiny {  // A barrier orders a thread block, and nothing orders two.
  static void Run(const Params& p) {
    StoreGlobal(p.output + Index(), 1.0f);
    BlockBarrier();
    LoadGlobal(p.output + (p.faulty ? kElements - 1 - Index() : Index() ^ 33));
  }
};
struct WrittenAfterManyRead : Tiny {  // Both blocks read it, then one of them writes it.
  static void Run(const Params& p) {
    LoadGlobal(p.output);
    BlockBarrier();
    if (ThreadIndex() == 0 && p.faulty) StoreGlobal(p.output, 1.0f);
  }
};
struct GlobalPastEnd : Tiny {
  static void Run(const Params& p) { LoadGlobal(p.input + Index() + (p.faulty ? 1 : 0)); }
};
struct GlobalAcrossEnd : Tiny {
  static void Run(const Params& p) {
    if (Index() != 0) return;
    LoadGlobal(reinterpret_cast<const uint4*>(p.input + kElements - (p.faulty ? 2 : 4)));
  }
};
struct NullPointer : Tiny {
  static void Run(const Params& p) { LoadGlobal(p.faulty ? nullptr : p.input); }
};
struct GlobalOdd : Tiny {
  static void Run(const Params& p) {
    LoadGlobal(reinterpret_cast<const uint4*>(p.input + (p.faulty ? 2 : 4)));
  }
};
struct WriteToInput : Tiny {
  static void Run(const Params& p) {
    StoreGlobal(p.faulty ? const_cast<float*>(p.input) + Index() : p.output + Index(), 1.0f);
  }
};

// ---- Copies. Each thread copies 16 bytes.
struct WaitedForTooFew : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    if (p.faulty) {
      WaitCopies<1>();
    } else {
      WaitCopies<0>();
    }
    LoadShared<uint4>(ThreadIndex() * 16);
    WaitCopies<0>();
  }
};
struct NotCommitted : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    if (!p.faulty) CommitCopies();
    WaitCopies<0>();
    LoadShared<uint4>(ThreadIndex() * 16);
    CommitCopies();
    WaitCopies<0>();
  }
};
struct WaitWithoutBarrier : Tiny {  // The own copies are there, those of others may not be.
  static void Run(const Params& p) {
    FillShared();
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    WaitCopies<0>();
    if (!p.faulty) BlockBarrier();
    LoadShared<uint4>(Other() * 16);
  }
};
struct BarrierWithoutWait : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    if (!p.faulty) WaitCopies<0>();
    BlockBarrier();
    LoadShared<uint4>(Other() * 16);
    WaitCopies<0>();
  }
};
struct CopyOverReaders : Tiny {
  static void Run(const Params& p) {
    FillShared();
    if (ThreadIndex() < 32) LoadShared<float>(0);
    if (!p.faulty) BlockBarrier();
    // Thread 63 copies last or first, and either order is a report.
    if (ThreadIndex() == 63) CopyAsync16(0, p.input, true);
    CommitCopies();
    WaitCopies<0>();
  }
};
struct StoreIntoPendingCopy : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    if (!p.faulty) WaitCopies<0>();
    StoreShared(ThreadIndex() * 16, 1.0f);
    WaitCopies<0>();
  }
};
struct CopyTwice : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    if (!p.faulty) WaitCopies<0>();
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    WaitCopies<0>();
  }
};
struct ExitWithoutWait : Tiny {
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input, true);
    CommitCopies();
    CommitCopies();  // An empty commit needs no wait.
    if (p.faulty) {
      WaitCopies<2>();
    } else {
      WaitCopies<1>();
    }
  }
};
struct CopyFromPastEnd : Tiny {  // A copy that is not valid reads nothing.
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input + kElements, p.faulty);
    CommitCopies();
    WaitCopies<0>();
  }
};

// ---- Collectives and barriers.
struct RowsInOneBank : Tiny {
  static void Run(const Params& p) {
    FillShared();
    uint32_t m[4];
    LoadMatrices(p.faulty ? LaneIndex() % 8 * 128 : LaneIndex() * 16, m);
  }
};
struct HalfAWarp : Tiny {
  static void Run(const Params& p) {
    if (!p.faulty || LaneIndex() < 16) ShuffleXor(1.0f, 1);
  }
};
struct TwoPlaces : Tiny {
  static void Run(const Params& p) {
    if (p.faulty && LaneIndex() < 16) {
      ShuffleXor(1.0f, 1);
    } else {
      ShuffleXor(2.0f, 1);
    }
  }
};
struct TwoBarriers : Tiny {
  static void Run(const Params& p) {
    if (p.faulty && WarpIndex() == 0) {
      BlockBarrier();
    } else {
      BlockBarrier();
    }
  }
};
struct ExitBeforeBarrier : Tiny {
  static void Run(const Params& p) {
    if (p.faulty && WarpIndex() == 1) return;
    BlockBarrier();
  }
};
struct BarrierAndShuffle : Tiny {  // Half a warp waits here, the other half there.
  static void Run(const Params& p) {
    if (p.faulty && LaneIndex() < 16) {
      BlockBarrier();
      ShuffleXor(1.0f, 1);
    } else {
      ShuffleXor(1.0f, 1);
      BlockBarrier();
    }
  }
};

struct Fault {
  const char* name;
  void (*launch)(const TinyParams&);
  ReportKind kind;
  ReportKind also = kind;  // Some orders show it as this kind.
};

template <typename Kernel>
void LaunchTiny(const TinyParams& params) {
  Launch<Kernel>({}, {.grid_x = kBlocks, .shared_bytes = kTinyBytes}, params);
}

#define STRUCTATTN_FAULT(kernel, ...) \
  { #kernel, &LaunchTiny < kernel>, __VA_ARGS__ }

const Fault kFaults[] = {
    STRUCTATTN_FAULT(ReadWithoutBarrier, kSharedRace),
    STRUCTATTN_FAULT(TwoWriters, kSharedRace),
    STRUCTATTN_FAULT(OverwriteWithoutBarrier, kSharedRace),
    STRUCTATTN_FAULT(LockstepForBarrier, kSharedRace),
    STRUCTATTN_FAULT(OverlappingBytes, kSharedRace),
    STRUCTATTN_FAULT(ReadUninitialized, kUninitializedRead),
    STRUCTATTN_FAULT(SharedPastEnd, kSharedBounds),
    STRUCTATTN_FAULT(SharedBeforeBegin, kSharedBounds),
    STRUCTATTN_FAULT(SharedOdd, kSharedMisaligned),
    STRUCTATTN_FAULT(StoredTwice, kGlobalRace),
    STRUCTATTN_FAULT(StoredByTwoBlocks, kGlobalRace),
    STRUCTATTN_FAULT(ReadOfOtherBlock, kGlobalRace),
    STRUCTATTN_FAULT(WrittenAfterManyRead, kGlobalRace),
    STRUCTATTN_FAULT(GlobalPastEnd, kGlobalBounds),
    STRUCTATTN_FAULT(GlobalAcrossEnd, kGlobalBounds),
    STRUCTATTN_FAULT(NullPointer, kGlobalBounds),
    STRUCTATTN_FAULT(GlobalOdd, kGlobalMisaligned),
    STRUCTATTN_FAULT(WriteToInput, kReadOnlyWrite),
    STRUCTATTN_FAULT(WaitedForTooFew, kPendingCopyRead),
    STRUCTATTN_FAULT(NotCommitted, kPendingCopyRead),
    STRUCTATTN_FAULT(WaitWithoutBarrier, kSharedRace, kCopyRace),
    STRUCTATTN_FAULT(BarrierWithoutWait, kPendingCopyRead, kSharedRace),
    STRUCTATTN_FAULT(CopyOverReaders, kCopyRace, kSharedRace),
    STRUCTATTN_FAULT(StoreIntoPendingCopy, kPendingCopyWrite),
    STRUCTATTN_FAULT(CopyTwice, kPendingCopyWrite),
    STRUCTATTN_FAULT(ExitWithoutWait, kPendingCopyAtExit),
    STRUCTATTN_FAULT(CopyFromPastEnd, kGlobalBounds),
    STRUCTATTN_FAULT(RowsInOneBank, kBankConflict),
    STRUCTATTN_FAULT(HalfAWarp, kDivergentCollective),
    STRUCTATTN_FAULT(TwoPlaces, kDivergentCollective),
    STRUCTATTN_FAULT(TwoBarriers, kBarrierDivergence),
    STRUCTATTN_FAULT(ExitBeforeBarrier, kBarrierDivergence),
    STRUCTATTN_FAULT(BarrierAndShuffle, kDeadlock),
};

class SimtReportsTest : public testing::TestWithParam<Fault> {
 protected:
  std::vector<simt::Report> Reports(bool faulty, uint64_t seed) {
    alignas(16) static float input[kElements] = {};
    alignas(16) static float output[kElements];
    const simt::Memory readable(input, sizeof(input), simt::Access::kReadOnly);
    const simt::Memory writable(output, sizeof(output), simt::Access::kWritable);
    simt::SetSeed(seed);
    GetParam().launch({faulty, input, output});
    return simt::TakeReports();
  }
};

TEST_P(SimtReportsTest, TheFaultIsReportedAndItsTwinIsNot) {
  size_t shown = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    EXPECT_EQ(simt::Describe(Reports(false, seed)), "");
    const std::vector<simt::Report> reports = Reports(true, seed);
    std::set<std::string_view> kinds;
    for (const simt::Report& report : reports) {
      kinds.insert(Name(report.kind));
      EXPECT_EQ(report.kernel, "tiny");
      EXPECT_EQ(report.threads.size(), report.places.size());
      for (const std::string& place : report.places) {
        EXPECT_EQ(place.rfind("tests/simt/reports_test.cc:", 0), 0u) << place;
      }
    }
    shown += kinds.count(Name(GetParam().kind));
    kinds.erase(Name(GetParam().kind));
    kinds.erase(Name(GetParam().also));
    EXPECT_FALSE(reports.empty());
    EXPECT_TRUE(kinds.empty()) << simt::Describe(reports);
  }
  EXPECT_GT(shown, 0u);
}

INSTANTIATE_TEST_SUITE_P(Faults, SimtReportsTest, testing::ValuesIn(kFaults),
                         [](const auto& info) { return std::string(info.param.name); });

struct Runaway : Tiny {  // It ends only when it reads a 1.
  static void Run(const Params& p) {
    for (const float* from = p.input; LoadGlobal(from) != 1.0f; ++from) {
    }
  }
};

TEST(SimtReportsListTest, ARunawayKernelIsEnded) {
  std::vector<float> input(kElements);
  const simt::Memory memory = simt::ReadOnly(input);
  LaunchTiny<Runaway>({.faulty = true, .input = input.data(), .output = nullptr});
  const std::vector<simt::Report> reports = simt::TakeReports();
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].kind, kGlobalBounds);
  EXPECT_GT(reports[0].times, 1000);
}

TEST(SimtReportsListTest, EveryKindHasItsFault) {
  std::set<ReportKind> kinds;
  for (const Fault& fault : kFaults) kinds.insert(fault.kind);
  for (int kind = 0; kind <= static_cast<int>(ReportKind::kPendingCopyAtExit); ++kind) {
    EXPECT_TRUE(kinds.count(static_cast<ReportKind>(kind))) << Name(static_cast<ReportKind>(kind));
  }
}

}  // namespace
}  // namespace structattn::emulated
