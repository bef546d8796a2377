// The element-wise ops give the same bits on every instruction set that this CPU supports, so the
// narrow ones are proven where only wide ones would run. SiluMul, whose exponential uses fused
// multiply-adds where there are any, is held to its error instead.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "hwy/targets.h"
#include "kernels/activation/silu_mul.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

class SimdTargetsTest : public testing::TestWithParam<DType> {
 protected:
  ~SimdTargetsTest() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }

  // The floats that `run` returns, once for each supported instruction set.
  template <typename Run>
  std::vector<std::vector<float>> OnEachTarget(const Run& run) {
    std::vector<std::vector<float>> results;
    const int64_t supported = hwy::SupportedTargets();
    for (int64_t rest = supported; rest != 0; rest &= rest - 1) {
      hwy::SetSupportedTargetsForTest(rest & -rest);
      hwy::GetChosenTarget().DeInit();
      results.push_back(run());
    }
    hwy::SetSupportedTargetsForTest(0);
    return results;
  }

  ThreadPool pool_{1};
};

TEST_P(SimdTargetsTest, RmsNormHasTheSameBits) {
  const int64_t rows = 3;
  const int64_t columns = 587;
  const std::vector<float> input = RandomNormal(rows * columns, 1);
  const std::vector<float> weight = RandomNormal(columns, 2);
  const auto results = OnEachTarget([&] {
    TypedBuffer output(GetParam(), std::vector<float>(rows * columns));
    RmsNorm({.pool = &pool_}, {.input = input.data(),
                               .weight = weight.data(),
                               .output = output.data(),
                               .output_dtype = GetParam(),
                               .rows = rows,
                               .columns = columns,
                               .epsilon = 1e-5f});
    return output.ToFloats();
  });
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results[0]);
}

TEST_P(SimdTargetsTest, RopeKvWriteHasTheSameBits) {
  const int32_t head_dim = 80;
  const std::vector<float> qkv = RandomNormal(4 * head_dim, 3);  // Two q heads, k and v.
  const std::vector<float> norm = RandomNormal(head_dim, 4);
  const std::vector<float> angles = RandomNormal(head_dim, 5);
  const int64_t slot = 5;
  const auto results = OnEachTarget([&] {
    std::vector<float> query(2 * head_dim);
    TypedBuffer key(GetParam(), std::vector<float>(16 * head_dim));
    TypedBuffer value = key;
    RopeKvWrite({.pool = &pool_}, {.qkv = qkv.data(),
                                   .query = query.data(),
                                   .cosine = angles.data(),
                                   .sine = angles.data() + head_dim / 2,
                                   .query_norm = norm.data(),
                                   .key_norm = norm.data(),
                                   .epsilon = 1e-5f,
                                   .slots = &slot,
                                   .kv = {.key = key.data(),
                                          .value = value.data(),
                                          .dtype = GetParam(),
                                          .block_size = 16,
                                          .kv_heads = 1,
                                          .head_dim = head_dim},
                                   .heads = 2,
                                   .tokens = 1});
    for (const TypedBuffer& cache : {key, value}) {
      const std::vector<float> floats = cache.ToFloats();
      query.insert(query.end(), floats.begin(), floats.end());
    }
    return query;
  });
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results[0]);
}

TEST_P(SimdTargetsTest, SiluMulStaysWithinItsError) {
  const int64_t columns = 333;
  std::vector<float> gate_up = RandomNormal(2 * columns, 6);
  for (float& value : gate_up) value *= 10.0f;
  const auto results = OnEachTarget([&] {
    TypedBuffer output(GetParam(), std::vector<float>(columns));
    SiluMul({.pool = &pool_}, {.gate_up = gate_up.data(),
                               .output = output.data(),
                               .output_dtype = GetParam(),
                               .rows = 1,
                               .columns = columns});
    return output.ToFloats();
  });
  for (const std::vector<float>& result : results) {
    for (int64_t i = 0; i < columns; ++i) {
      const double gate = gate_up[i];
      const double expected = gate / (1.0 + std::exp(-gate)) * gate_up[columns + i];
      EXPECT_NEAR(result[i], expected,
                  5.0 * 0x1p-24 * std::abs(expected) + RoundingError(GetParam(), expected));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, SimdTargetsTest,
                         testing::Values(DType::kFloat32, DType::kBfloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace structattn
