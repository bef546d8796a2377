// Linear with int8 weights, which exists on CUDA only, against double precision on the emulator
// (or, in tests/gpu, on a device): ragged sizes, poison around every array, and that a row's bits
// do not hang on its batch. faults_test.py runs SimtInt8LinearEdgeTest with spoilt kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <list>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/linear/linear.h"
#include "tests/kernels/typed_buffer.h"
#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr int64_t kRows[] = {1, 2, 15, 16, 17, 33, 64, 65, 130};
constexpr int64_t kOutputs[] = {1, 7, 8, 64, 100, 129};
constexpr int64_t kInputs[] = {32, 64, 96, 160, 576};
constexpr DType kDTypes[] = {DType::kFloat32, DType::kBfloat16, DType::kFloat16};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A copy of an array, aligned to 16 bytes, between bytes 0xff: NaN in every floating-point type.
class Guarded {
 public:
  Guarded(const void* from, size_t bytes) : bytes_(bytes + 2 * kGuard, 0xff) {
    if (bytes > 0) std::memcpy(data(), from, bytes);
  }
  template <typename T>
  explicit Guarded(const std::vector<T>& from) : Guarded(from.data(), from.size() * sizeof(T)) {}

  unsigned char* data() { return bytes_.data() + kGuard; }
  size_t size() const { return bytes_.size() - 2 * kGuard; }
  simt::Memory Register(simt::Access access) { return simt::Memory(data(), size(), access); }
  bool GuardsAreIntact() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (bytes_[i] != 0xff || bytes_[bytes_.size() - 1 - i] != 0xff) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  std::vector<unsigned char> bytes_;
};

struct Weight {
  int64_t outputs;
  int64_t inputs;
  std::vector<int8_t> codes;
  std::vector<Float16> scales;

  Weight(int64_t outputs, int64_t inputs, uint32_t seed)
      : outputs(outputs), inputs(inputs), codes(outputs * inputs) {
    std::mt19937 random(seed);
    for (int8_t& code : codes) code = static_cast<int8_t>(random() % 256);
    for (const float scale : RandomNormal(outputs * inputs / kInt8ScaleInputs, seed + 1)) {
      scales.push_back(FromFloat<Float16>(0.01f * scale));
    }
  }

  double Scale(int64_t output, int64_t k) const {
    return ToFloat(scales[(output * inputs + k) / kInt8ScaleInputs]);
  }
  // Of `count` outputs from `first`.
  Weight Slice(int64_t first, int64_t count) const {
    Weight slice(count, inputs, 0);
    std::copy_n(codes.begin() + first * inputs, count * inputs, slice.codes.begin());
    const int64_t strips = inputs / kInt8ScaleInputs;
    std::copy_n(scales.begin() + first * strips, count * strips, slice.scales.begin());
    return slice;
  }
};

TypedBuffer RandomRows(DType dtype, int64_t rows, int64_t inputs, uint32_t seed) {
  return TypedBuffer(dtype, RandomNormal(rows * inputs, seed));
}

// [rows, outputs]; added to `before`, or in place of NaN if that is empty. The same bits, and no
// report, in every schedule.
std::vector<float> Multiply(const TypedBuffer& input, const Weight& weight,
                            const std::vector<float>& before = {}) {
  const int64_t rows = input.size() / weight.inputs;
  Guarded x(input.data(), input.size() * ByteSize(input.dtype()));
  Guarded codes(weight.codes);
  Guarded scales(weight.scales);
  std::vector<float> first;
  for (const uint64_t seed : simt::kSeeds) {
    Guarded y(before.empty() ? std::vector<float>(rows * weight.outputs, kNan) : before);
    {
      const simt::Memory memory[] = {
          x.Register(simt::Access::kReadOnly), codes.Register(simt::Access::kReadOnly),
          scales.Register(simt::Access::kReadOnly), y.Register(simt::Access::kWritable)};
      simt::SetSeed(seed);
      Linear({.device = DeviceKind::kEmulated},
             {.input = x.data(),
              .weight = {.kind = WeightKind::kInt8,
                         .input_dtype = input.dtype(),
                         .outputs = weight.outputs,
                         .inputs = weight.inputs,
                         .codes = reinterpret_cast<const int8_t*>(codes.data()),
                         .scales = reinterpret_cast<const Float16*>(scales.data())},
              .output = reinterpret_cast<float*>(y.data()),
              .accumulate = !before.empty(),
              .rows = rows});
    }
    EXPECT_EQ(simt::Describe(simt::TakeReports()), "") << "seed " << seed;
    EXPECT_TRUE(y.GuardsAreIntact());
    std::vector<float> output(rows * weight.outputs);
    if (y.size() > 0) std::memcpy(output.data(), y.data(), y.size());
    if (first.empty()) first = output;
    EXPECT_TRUE(y.size() == 0 || std::memcmp(output.data(), first.data(), y.size()) == 0)
        << "seed " << seed << " gives other bits";
  }
  return first;
}

// The most by which a right kernel's sum is off, with u = 2^-24 a rounding to nearest, and
// `magnitude` the sum of all |x w|, which no partial sum exceeds. Products are exact in float, and
// so are float32 weights. 16-bit inputs: tensor cores may cut off what a rounding would round, 2 u
// for each of the 32 additions of a strip; a strip is then added with one rounding. float32: a
// lane's chain of four columns of every strip, three additions over eight lanes. Another one adds
// `before`. 1 % for terms of second order.
double Bound(DType dtype, int64_t inputs, double magnitude, double before) {
  const double chain = dtype == DType::kFloat32
                           ? static_cast<double>(inputs / 32 * 4 + 3)
                           : 2.0 * kInt8ScaleInputs + static_cast<double>(inputs) / 32.0;
  return 1.01 * 0x1p-24 * ((chain + 1.0) * magnitude + std::abs(before));
}

// Outputs that are NaN or further off than that.
int64_t CountWrong(const TypedBuffer& input, const Weight& weight, const std::vector<float>& before,
                   const std::vector<float>& output) {
  const std::vector<float> x = input.ToFloats();
  int64_t wrong = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(output.size()); ++i) {
    const int64_t n = i % weight.outputs;
    const float* const row = &x[i / weight.outputs * weight.inputs];
    const double old = before.empty() ? 0.0 : before[i];
    double sum = 0.0;
    double magnitude = 0.0;
    for (int64_t k = 0; k < weight.inputs; ++k) {
      const double product = row[k] * (weight.codes[n * weight.inputs + k] * weight.Scale(n, k));
      sum += product;
      magnitude += std::abs(product);
    }
    const double bound = Bound(input.dtype(), weight.inputs, magnitude, old);
    if (!(std::abs(output[i] - (old + sum)) <= bound)) ++wrong;
  }
  return wrong;
}

struct Size {
  int64_t rows;
  int64_t outputs;
  int64_t inputs;
};

void ExpectRight(DType dtype, const Size& size, bool accumulate) {
  SCOPED_TRACE(testing::Message() << size.rows << " rows, " << size.outputs << " outputs, "
                                  << size.inputs << " inputs, accumulate " << accumulate);
  const uint32_t seed = static_cast<uint32_t>(size.rows * 7919 + size.outputs * 31 + size.inputs);
  const TypedBuffer input = RandomRows(dtype, size.rows, size.inputs, seed);
  const Weight weight(size.outputs, size.inputs, seed + 1);
  std::vector<float> before;
  if (accumulate) before = RandomNormal(size.rows * size.outputs, seed + 3);
  EXPECT_EQ(CountWrong(input, weight, before, Multiply(input, weight, before)), 0);
}

std::string NameOf(DType dtype) { return std::string(Name(dtype)); }

// ---- Every size. With and without `accumulate` in turns, so that each value of an axis has both.

class SimtInt8LinearTest : public testing::TestWithParam<std::tuple<DType, int64_t>> {};

TEST_P(SimtInt8LinearTest, AgreesWithDoublePrecision) {
  const auto [dtype, rows] = GetParam();
  bool accumulate = rows % 2 == 0;
  for (const int64_t inputs : kInputs) {
    for (const int64_t outputs : kOutputs) {
      ExpectRight(dtype, {rows, outputs, inputs}, accumulate);
      accumulate = !accumulate;
    }
    accumulate = !accumulate;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SimtInt8LinearTest,
                         testing::Combine(testing::ValuesIn(kDTypes), testing::ValuesIn(kRows)),
                         [](const auto& info) {
                           return NameOf(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param)) + "_rows";
                         });

// ---- What each kernel can get wrong at its edges, in little time.

class SimtInt8LinearEdgeTest : public testing::TestWithParam<DType> {};

TEST_P(SimtInt8LinearEdgeTest, FewRows) {
  ExpectRight(GetParam(), {3, 41, 608}, false);
  ExpectRight(GetParam(), {16, 9, 96}, true);
}

TEST_P(SimtInt8LinearEdgeTest, SomeRows) { ExpectRight(GetParam(), {21, 70, 416}, true); }

TEST_P(SimtInt8LinearEdgeTest, ManyRows) { ExpectRight(GetParam(), {99, 131, 224}, false); }

// One-hot rows pick each of the 256 codes.
TEST_P(SimtInt8LinearEdgeTest, CodesAreExact) {
  Weight weight(8, 32, 1);
  for (size_t i = 0; i < weight.codes.size(); ++i) {
    weight.codes[i] = static_cast<int8_t>(static_cast<int>(i) - 128);
  }
  std::vector<float> ones(size_t{32} * 32, 0.0f);
  for (size_t k = 0; k < 32; ++k) ones[k * 32 + k] = 1.0f;
  const std::vector<float> output = Multiply(TypedBuffer(GetParam(), ones), weight);
  for (int64_t n = 0; n < 8; ++n) {
    for (int64_t k = 0; k < 32; ++k) {
      ASSERT_EQ(output[k * 8 + n],
                static_cast<float>(weight.codes[n * 32 + k] * weight.Scale(n, k)))
          << "code " << static_cast<int>(weight.codes[n * 32 + k]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, SimtInt8LinearEdgeTest, testing::ValuesIn(kDTypes),
                         [](const auto& info) { return NameOf(info.param); });

// ---- What must not change one bit.

class SimtInt8LinearInvarianceTest : public testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kAllRows = 130;
  static constexpr int64_t kAllOutputs = 72;
  static constexpr int64_t kColumns = 352;

  const TypedBuffer input_ = RandomRows(GetParam(), kAllRows, kColumns, 5);
  const Weight weight_{kAllOutputs, kColumns, 6};
  const std::vector<float> all_ = Multiply(input_, weight_);
};

TEST_P(SimtInt8LinearInvarianceTest, RowsAloneEqualRowsInABatch) {
  for (const int64_t rows : kRows) {
    for (const int64_t first : {int64_t{0}, (kAllRows - rows) / 2, kAllRows - rows}) {
      const std::vector<float> some =
          Multiply(input_.Slice(first * kColumns, rows * kColumns), weight_);
      EXPECT_EQ(std::memcmp(some.data(), &all_[first * kAllOutputs], some.size() * sizeof(float)),
                0)
          << rows << " rows from " << first;
    }
  }
}

TEST_P(SimtInt8LinearInvarianceTest, OutputsAloneEqualOutputsOfAWiderWeight) {
  for (const int64_t first : {3, 35, 71}) {
    const Weight slice = weight_.Slice(first, 1);
    const std::vector<float> some = Multiply(input_.Slice(0, 20 * kColumns), slice);
    for (int64_t row = 0; row < 20; ++row) {
      EXPECT_EQ(some[row], all_[row * kAllOutputs + first]) << row << ", " << first;
    }
  }
}

// What is not finite stays in its row or its output.
TEST_P(SimtInt8LinearInvarianceTest, NaNStaysInItsRowAndItsOutput) {
  TypedBuffer input = input_.Slice(0, 20 * kColumns);
  Weight weight = weight_;
  input.Set(7 * kColumns + 351, kNan);
  input.Set(9 * kColumns, std::numeric_limits<float>::infinity());
  weight.scales[11 * kColumns / kInt8ScaleInputs + 3] = FromFloat<Float16>(kNan);
  const std::vector<float> output = Multiply(input, weight);
  for (int64_t i = 0; i < 20 * kAllOutputs; ++i) {
    const int64_t row = i / kAllOutputs;
    if (row == 7 || i % kAllOutputs == 11) {
      EXPECT_TRUE(std::isnan(output[i])) << i;
    } else if (row == 9) {
      EXPECT_FALSE(std::isfinite(output[i])) << i;
    } else {
      EXPECT_EQ(output[i], all_[i]) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, SimtInt8LinearInvarianceTest, testing::ValuesIn(kDTypes),
                         [](const auto& info) { return NameOf(info.param); });

// ---- Work and refusals.

// Of memory the kernels read what there is, the codes once for each block of rows; shared memory
// has no bank conflict.
TEST(SimtInt8LinearWorkTest, CodesAreReadOnceAndBanksDoNotConflict) {
  if (!simt::CountsWork()) GTEST_SKIP() << "a device counts nothing";
  const struct {
    int64_t rows;
    int64_t rows_of_block;
    int64_t outputs_of_block;
  } cases[] = {{1, 16, 32}, {16, 16, 32}, {64, 64, 64}, {130, 96, 128}};
  for (const auto& one : cases) {
    const Weight weight(256, 320, 1);
    simt::TakeLaunches();
    Multiply(RandomRows(DType::kBfloat16, one.rows, 320, 2), weight);
    const std::vector<simt::LaunchCounts> launches = simt::TakeLaunches();
    ASSERT_EQ(launches.size(), std::size(simt::kSeeds));
    const simt::LaunchCounts& counts = launches[0];
    const int64_t row_quant_blocks = (one.rows + one.rows_of_block - 1) / one.rows_of_block;
    EXPECT_EQ(counts.copies * 16,
              row_quant_blocks * 256 * 320 + 256 / one.outputs_of_block * one.rows * 320 * 2);
    EXPECT_EQ(counts.global_loaded_bytes - counts.copies * 16,
              row_quant_blocks * 256 * 320 / 32 * 2);
    EXPECT_EQ(counts.global_stored_bytes, one.rows * 256 * 4);
    for (const simt::Wavefronts& wavefronts :
         {counts.shared_load_wavefronts, counts.shared_store_wavefronts, counts.copy_wavefronts}) {
      EXPECT_GT(wavefronts.ideal, 0);
      EXPECT_EQ(wavefronts.actual, wavefronts.ideal) << one.rows << " rows";
    }
  }
}

TEST(SimtInt8LinearWorkTest, NoRowsAreNoWork) {
  for (const DType dtype : kDTypes) {
    EXPECT_TRUE(Multiply(RandomRows(dtype, 0, 64, 1), Weight(5, 64, 1)).empty());
  }
}

TEST(SimtInt8LinearWorkTest, RefusesWhatItCannotRead) {
  alignas(16) static const int8_t codes[256] = {};
  const KernelContext context = {.device = DeviceKind::kEmulated};
  LinearParams params = {
      .input = codes,
      .weight = {.kind = WeightKind::kInt8, .outputs = 1, .inputs = 48, .codes = codes}};
  EXPECT_THROW(Linear(context, params), std::runtime_error);
  params.weight.inputs = 64;
  Linear(context, params);
  params.input = codes + 8;
  EXPECT_THROW(Linear(context, params), std::runtime_error);
  params.input = codes;
  params.weight.codes = codes + 4;
  EXPECT_THROW(Linear(context, params), std::runtime_error);
}

}  // namespace
}  // namespace structattn
