// Embedding: exactly the table's rows, widened, for every table type.
#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/kernels/test_device.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

class EmbeddingTest : public testing::TestWithParam<DType> {};

TEST_P(EmbeddingTest, GathersRows) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr int64_t kVocabulary = 211;
  ThreadPool pool(2);
  for (const int64_t columns : {1, 17, 64, 577}) {
    const TypedBuffer table(GetParam(), RandomNormal(kVocabulary * columns, 3));
    std::vector<int32_t> ids = {0, kVocabulary - 1, 7, 7, 0};
    for (int32_t i = 0; i < 300; ++i) ids.push_back(i * 37 % kVocabulary);
    const int64_t rows = static_cast<int64_t>(ids.size());
    std::vector<float> output(rows * columns + 1, kNan);
    output.back() = -7.0f;
    const TestBuffer rows_of_output = {output.data(), (output.size() - 1) * sizeof(float), true};
    RunOnTestDevice(pool, {Read(table), Read(ids), rows_of_output},
                    [&](const KernelContext& context) {
                      Embedding(context, {.table = table.data(),
                                          .table_dtype = GetParam(),
                                          .ids = ids.data(),
                                          .output = output.data(),
                                          .rows = rows,
                                          .columns = columns});
                    });
    for (int64_t i = 0; i < rows * columns; ++i) {
      ASSERT_EQ(output[i], table.Get(ids[i / columns] * columns + i % columns)) << i;
    }
    EXPECT_EQ(output.back(), -7.0f);
  }
}

TEST_P(EmbeddingTest, NoRowsIsNothing) {
  ThreadPool pool(1);
  RunOnTestDevice(pool, {}, [&](const KernelContext& context) {
    Embedding(context, {.table_dtype = GetParam(), .rows = 0, .columns = 5});
  });
}

INSTANTIATE_TEST_SUITE_P(DTypes, EmbeddingTest,
                         testing::Values(DType::kFloat32, DType::kBfloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace structattn
