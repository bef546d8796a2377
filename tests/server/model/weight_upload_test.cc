// WeightUpload: any shapes, any dtypes, any buffer size: the same values as a plain conversion.
#include "server/model/weight_upload.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "server/model/device.h"

namespace structattn {
namespace {

constexpr DType kAll[] = {DType::kFloat32, DType::kBfloat16, DType::kFloat16};

at::Tensor RandomMatrix(std::mt19937* random, int64_t rows, int64_t columns, DType dtype) {
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * columns);
  for (float& value : values) value = normal(*random);
  return at::tensor(values).view({rows, columns}).to(ToScalarType(dtype));
}

TEST(WeightUploadTest, StacksAndConvertsWhateverTheBuffersSize) {
  constexpr uint64_t kSeed = 5;
  std::mt19937 random(kSeed);
  for (int round = 0; round < 60; ++round) {
    const DType to = kAll[random() % 3];
    const int64_t columns = 1 + static_cast<int64_t>(random() % 40);
    std::vector<at::Tensor> sources;
    std::vector<MatrixView> parts;
    std::vector<at::Tensor> expected;
    for (int part = 0; part < 1 + round % 3; ++part) {
      const DType from = kAll[random() % 3];
      const int64_t rows = 1 + static_cast<int64_t>(random() % 30);
      sources.push_back(RandomMatrix(&random, rows, columns, from));
      parts.push_back({sources.back().const_data_ptr(), from, rows, columns});
      expected.push_back(sources.back().to(ToScalarType(to)));
    }
    // From one element a time to everything at once.
    const int64_t buffer_bytes =
        round % 2 == 0 ? 4 + static_cast<int64_t>(random() % 100) : 1 << 16;
    WeightUpload upload({.kind = DeviceKind::kEmulated}, buffer_bytes / 4 * 4);
    const at::Tensor stacked = upload.Stack(parts, to);
    EXPECT_EQ(stacked.scalar_type(), ToScalarType(to));
    EXPECT_TRUE(at::equal(stacked, at::cat(expected))) << "seed " << kSeed << " round " << round;
  }
}

}  // namespace
}  // namespace structattn
