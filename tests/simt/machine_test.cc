// What the emulator computes, counts and refuses, beside what it reports (reports_test.cc).
#include "tests/simt/machine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "tests/simt/simt.h"

namespace structattn::emulated {
namespace {

struct OneWarp {
  static constexpr const char* kName = "one warp";
  static constexpr int kThreads = 32;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 2048;
};

// ---- Fragments, by the formulas of the PTX ISA for each element i of lane `lane`.
struct Place2D {
  int row;
  int column;
};
Place2D PlaceInA(int lane, int i) {
  return {lane / 4 + (i % 4 < 2 ? 0 : 8), lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8)};
}
Place2D PlaceInB(int lane, int i) { return {lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8), lane / 4}; }
Place2D PlaceInC(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + i % 2}; }

struct ProductParams {
  const uint32_t* a;  // [32 lanes, 4]
  const uint32_t* b;  // [32, 2]
  float* c;           // [32, 4]
};

template <typename T>
struct ProductKernel : OneWarp {
  using Params = ProductParams;
  static void Run(const Params& p) {
    const int lane = LaneIndex();
    uint32_t a[4];
    float c[4];
    for (int i = 0; i < 4; ++i) a[i] = LoadGlobal(p.a + lane * 4 + i);
    for (int i = 0; i < 4; ++i) c[i] = LoadGlobal(p.c + lane * 4 + i);
    MultiplyAccumulate<T>(c, a, LoadGlobal(p.b + lane * 2), LoadGlobal(p.b + lane * 2 + 1));
    for (int i = 0; i < 4; ++i) StoreGlobal(p.c + lane * 4 + i, c[i]);
  }
};

template <typename T>
class SimtProductTest : public testing::Test {};
using Storages = testing::Types<Bfloat16, Float16>;
TYPED_TEST_SUITE(SimtProductTest, Storages);

TYPED_TEST(SimtProductTest, EqualsTheMatrixProduct) {
  using T = TypeParam;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<T> a(16 * 16), b(16 * 8);
    std::vector<float> c(16 * 8);
    for (T& x : a) x = FromFloat<T>(normal(random));
    for (T& x : b) x = FromFloat<T>(normal(random));
    for (float& x : c) x = normal(random);
    std::vector<T> a_lanes(32 * 8), b_lanes(32 * 4);
    std::vector<float> c_lanes(32 * 4);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const Place2D at = PlaceInA(lane, i);
        a_lanes[lane * 8 + i] = a[at.row * 16 + at.column];
      }
      for (int i = 0; i < 4; ++i) {
        const Place2D in_b = PlaceInB(lane, i);
        b_lanes[lane * 4 + i] = b[in_b.row * 8 + in_b.column];
        const Place2D in_c = PlaceInC(lane, i);
        c_lanes[lane * 4 + i] = c[in_c.row * 8 + in_c.column];
      }
    }
    const simt::Memory memory_a = simt::ReadOnly(a_lanes);
    const simt::Memory memory_b = simt::ReadOnly(b_lanes);
    const simt::Memory memory_c = simt::Writable(c_lanes);
    Launch<ProductKernel<T>>({}, {},
                             {reinterpret_cast<const uint32_t*>(a_lanes.data()),
                              reinterpret_cast<const uint32_t*>(b_lanes.data()), c_lanes.data()});
    ASSERT_EQ(simt::Describe(simt::TakeReports()), "");
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const Place2D at = PlaceInC(lane, i);
        double expected = c[at.row * 8 + at.column];
        double magnitude = std::abs(expected);
        for (int k = 0; k < 16; ++k) {
          const double product =
              double{ToFloat(a[at.row * 16 + k])} * ToFloat(b[k * 8 + at.column]);
          expected += product;
          magnitude += std::abs(product);
        }
        // Sixteen sums, each rounded.
        EXPECT_NEAR(c_lanes[lane * 4 + i], expected, 16.1 * 0x1p-24 * magnitude);
      }
    }
  }
}

struct MatrixParams {
  bool transposed;
  uint16_t* output;  // [32 lanes, 4 matrices, 2]
};

// Matrix m has 256 m + 16 row + column; its rows are `stride` bytes apart.
struct MatrixKernel : OneWarp {
  using Params = MatrixParams;
  static constexpr int kStride = 48;
  static void Run(const Params& p) {
    const int lane = LaneIndex();
    for (int column = 0; column < 8; ++column) {
      StoreShared<uint16_t>(lane * kStride + column * 2,
                            static_cast<uint16_t>(lane / 8 * 256 + lane % 8 * 16 + column));
    }
    BlockBarrier();
    uint32_t m[4];
    if (p.transposed) {
      LoadMatricesTransposed(lane * kStride, m);
    } else {
      LoadMatrices(lane * kStride, m);
    }
    for (int i = 0; i < 4; ++i) {
      StoreGlobal(p.output + lane * 8 + i * 2, static_cast<uint16_t>(m[i]));
      StoreGlobal(p.output + lane * 8 + i * 2 + 1, static_cast<uint16_t>(m[i] >> 16));
    }
  }
};

TEST(SimtMatrixTest, LanesGetTheirElements) {
  for (const bool transposed : {false, true}) {
    std::vector<uint16_t> output(32 * 8);
    const simt::Memory memory = simt::Writable(output);
    Launch<MatrixKernel>({}, {.shared_bytes = 2048}, {transposed, output.data()});
    EXPECT_EQ(simt::Describe(simt::TakeReports()), "");
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) {
        int row = lane / 4;
        int column = lane % 4 * 2 + i % 2;
        if (transposed) std::swap(row, column);
        EXPECT_EQ(output[lane * 8 + i], i / 2 * 256 + row * 16 + column);
      }
    }
  }
}

TEST(SimtArithmeticTest, Exp2FlushesSubnormals) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Exp2(-126.0f), 0x1p-126f);
  EXPECT_EQ(Exp2(-126.5f), 0.0f);
  EXPECT_EQ(Exp2(-kInfinity), 0.0f);
  EXPECT_EQ(Exp2(0.0f), 1.0f);
  EXPECT_TRUE(std::isnan(Exp2(std::numeric_limits<float>::quiet_NaN())));
}

// ---- Wavefronts and sectors, of patterns whose cost is known.
std::vector<uint64_t> Strided(int lanes, int stride) {
  std::vector<uint64_t> offsets(lanes);
  for (int lane = 0; lane < lanes; ++lane) offsets[lane] = lane * stride;
  return offsets;
}

TEST(SimtWavefrontsTest, KnownPatterns) {
  struct Pattern {
    std::vector<uint64_t> offsets;
    int size;
    int actual;
    int ideal;
  };
  const Pattern patterns[] = {
      {Strided(32, 4), 4, 1, 1},      // One word a bank.
      {Strided(32, 8), 4, 2, 1},      // Every second bank.
      {Strided(32, 128), 4, 32, 1},   // All in one bank.
      {Strided(32, 0), 4, 1, 1},      // Broadcast.
      {Strided(32, 2), 2, 1, 1},      // Two lanes a word.
      {Strided(32, 8), 8, 2, 2},      // Sixteen lanes at a time.
      {Strided(32, 16), 16, 4, 4},    // Eight lanes at a time.
      {Strided(32, 128), 16, 32, 4},  // Eight rows in the same banks.
      {Strided(32, 144), 16, 4, 4},   // Padded by 16 bytes.
      {Strided(8, 16), 16, 1, 1},
  };
  for (const Pattern& pattern : patterns) {
    const simt::Wavefronts wavefronts = simt::CountWavefronts(pattern.offsets, pattern.size);
    EXPECT_EQ(wavefronts.actual, pattern.actual) << pattern.offsets[1] << " " << pattern.size;
    EXPECT_EQ(wavefronts.ideal, pattern.ideal) << pattern.offsets[1] << " " << pattern.size;
  }
}

struct CountedParams {
  const float* input;  // [128], 32-byte aligned.
  float* output;       // [64]
};

// A kernel that does everything that is counted a known number of times.
struct CountedKernel {
  using Params = CountedParams;
  static constexpr const char* kName = "counted";
  static constexpr int kThreads = 64;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 4096;
  static void Run(const Params& p) {
    CopyAsync16(ThreadIndex() * 16, p.input + LaneIndex() * 4, ThreadIndex() < 32);
    CommitCopies();
    WaitCopies<0>();
    BlockBarrier();
    uint32_t m[4];
    LoadMatrices(LaneIndex() * 16, m);
    StoreShared(2048 + ThreadIndex() * 8, 0.0f);
    BlockBarrier();
    float sum = 0.0f;
    for (int i = 0; i < 3; ++i) sum += LoadShared<float>(i * 128 + LaneIndex() * 4);
    sum += ShuffleXor(sum, 1);
    if (ThreadIndex() % 8 == 0) sum += LoadGlobal(p.input + ThreadIndex() / 8 * 16);
    if (BlockX() == 0) StoreGlobal(p.output + ThreadIndex(), sum);
  }
};

TEST(SimtCountsTest, AreExact) {
  alignas(32) float input[128] = {};
  alignas(32) float output[64];
  const simt::Memory readable(input, sizeof(input), simt::Access::kReadOnly);
  const simt::Memory writable(output, sizeof(output), simt::Access::kWritable);
  simt::TakeLaunches();
  Launch<CountedKernel>({}, {.grid_x = 3, .shared_bytes = 4096}, {input, output});
  EXPECT_EQ(simt::Describe(simt::TakeReports()), "");
  const std::vector<simt::LaunchCounts> launches = simt::TakeLaunches();
  ASSERT_EQ(launches.size(), 1u);
  const simt::LaunchCounts& counts = launches[0];
  EXPECT_EQ(counts.kernel, "counted");
  EXPECT_EQ(counts.blocks, 3);
  EXPECT_EQ(counts.threads, 64);
  EXPECT_EQ(counts.shared_bytes, 4096);
  EXPECT_EQ(counts.global_loaded_bytes, 3 * (32 * 16 + 8 * 4));
  EXPECT_EQ(counts.global_loaded_sectors, 3 * (16 + 8));
  EXPECT_EQ(counts.global_stored_bytes, 64 * 4);
  EXPECT_EQ(counts.global_stored_sectors, 8);
  EXPECT_EQ(counts.shared_loaded_bytes, 3 * (2 * 512 + 3 * 64 * 4));
  EXPECT_EQ(counts.shared_stored_bytes, 3 * (64 * 16 + 64 * 4));
  EXPECT_EQ(counts.copies, 3 * 32);
  EXPECT_EQ(counts.zero_fills, 3 * 32);
  EXPECT_EQ(counts.matrix_loads, 3 * 2);
  EXPECT_EQ(counts.multiply_accumulates, 0);
  EXPECT_EQ(counts.shuffles, 3 * 2);
  EXPECT_EQ(counts.barriers, 3 * 2);
  EXPECT_EQ(counts.matrix_load_wavefronts.actual, 3 * 2 * 4);
  EXPECT_EQ(counts.shared_load_wavefronts.actual, 3 * 2 * 3);
  EXPECT_EQ(counts.shared_store_wavefronts.actual, 3 * 2 * 2);
  EXPECT_EQ(counts.shared_store_wavefronts.ideal, 3 * 2);
  EXPECT_EQ(counts.copy_wavefronts.actual, 3 * 2 * 4);
}

// ---- Copies arrive at the wait, zeros where not valid; blocks begin with poison.
struct CopyParams {
  const float* input;  // [4]
  float* output;       // [3]
};
struct CopyKernel : OneWarp {
  using Params = CopyParams;
  static void Run(const Params& p) {
    if (ThreadIndex() != 0) return;
    CopyAsync16(0, p.input, true);
    CopyAsync16(16, p.input, false);
    CommitCopies();
    WaitCopies<0>();
    StoreGlobal(p.output, LoadShared<float>(4));
    StoreGlobal(p.output + 1, LoadShared<float>(20));
    StoreGlobal(p.output + 2, LoadShared<float>(32));
  }
};

TEST(SimtCopyTest, CopiesZerosAndPoison) {
  alignas(16) float input[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  std::vector<float> output(3);
  const simt::Memory readable(input, sizeof(input), simt::Access::kReadOnly);
  const simt::Memory writable = simt::Writable(output);
  Launch<CopyKernel>({}, {.shared_bytes = 64}, {input, output.data()});
  EXPECT_EQ(output[0], 2.0f);
  EXPECT_EQ(output[1], 0.0f);
  EXPECT_TRUE(std::isnan(output[2]));
  const std::vector<simt::Report> reports = simt::TakeReports();
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].kind, simt::ReportKind::kUninitializedRead);
}

// ---- Launches.
struct OrderParams {
  std::vector<int>* order;  // It is in the host's memory, where no real kernel could write.
};
struct OrderKernel : OneWarp {
  using Params = OrderParams;
  static void Run(const Params& p) {
    p.order->push_back((BlockZ() * 100 + BlockY() * 10 + BlockX()) * 32 + LaneIndex());
  }
};

std::vector<int> Order(uint64_t seed) {
  std::vector<int> order;
  simt::SetSeed(seed);
  Launch<OrderKernel>({}, {.grid_x = 3, .grid_y = 2, .grid_z = 2}, {&order});
  return order;
}

TEST(SimtLaunchTest, TheSeedIsTheOrder) {
  EXPECT_EQ(Order(1), Order(1));
  EXPECT_NE(Order(1), Order(2));
  std::vector<int> sorted = Order(3);
  std::sort(sorted.begin(), sorted.end());
  std::vector<int> expected;
  for (const int block : {0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112}) {
    for (int lane = 0; lane < 32; ++lane) expected.push_back(block * 32 + lane);
  }
  EXPECT_EQ(sorted, expected);
}

TEST(SimtLaunchTest, RefusesWhatADeviceRefuses) {
  std::vector<int> order;
  const auto launch = [&](const LaunchShape& shape) { Launch<OrderKernel>({}, shape, {&order}); };
  EXPECT_THROW(launch({.grid_x = 0x80000000u}), std::runtime_error);
  EXPECT_THROW(launch({.grid_y = 65536}), std::runtime_error);
  EXPECT_THROW(launch({.grid_z = 65536}), std::runtime_error);
  EXPECT_THROW(launch({.shared_bytes = 2049}), std::runtime_error);
  EXPECT_TRUE(order.empty());
  launch({.grid_x = 0, .grid_y = 65536});  // It is empty, so nothing is refused.
  EXPECT_TRUE(order.empty());
  launch({.shared_bytes = 2048});
  EXPECT_EQ(order.size(), 32u);
}

}  // namespace
}  // namespace structattn::emulated
