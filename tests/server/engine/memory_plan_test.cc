// What a model will take, and what is done where it does not fit.
#include "server/engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/model/model_files.h"

namespace structattn::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMib = int64_t{1} << 20;
constexpr WeightForm kFloats{.dtype = DType::kFloat32};

class MemoryPlanTest : public testing::Test {
 protected:
  MemoryPlanTest() : checkpoint_(*Checkpoint::Open(Written())) {}

  absl::StatusOr<MemoryPlan> Plan(const EngineOptions& options, int64_t available_bytes) const {
    return PlanMemory(*checkpoint_, kFloats, options, available_bytes);
  }

  std::string Written() const {
    WriteTinyModel(directory_);
    return directory_.path();
  }

  const TempDirectory directory_;
  const std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(MemoryPlanTest, CountsWeightsAndTokens) {
  const auto plan = Plan({}, 1 << 30);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->weights.bytes, checkpoint_->parameters() * 4);
  EXPECT_EQ(plan->weights.format, "float32");
  EXPECT_EQ(plan->kv_token_bytes, 2 * 2 * 1 * 16 * 4) << "keys, values; layers; heads; head_dim";
  const WeightEstimate rounded = EstimateWeights(
      *checkpoint_, {.dtype = DType::kBfloat16, .quantization = Quantization::kInt8});
  EXPECT_EQ(rounded.format, "int8");
  EXPECT_LT(rounded.bytes, plan->weights.bytes / 2);
}

TEST_F(MemoryPlanTest, TheDefaultShrinksToWhatIsThere) {
  const EngineOptions options{.kv_memory_bytes = 2048 * kMib};
  const auto roomy = Plan(options, 4096 * kMib);
  ASSERT_TRUE(roomy.ok()) << roomy.status();
  EXPECT_EQ(roomy->kv_bytes, 2048 * kMib);
  EXPECT_FALSE(roomy->kv_shrunk);
  const auto tight = Plan(options, 1024 * kMib);
  ASSERT_TRUE(tight.ok()) << tight.status();
  EXPECT_TRUE(tight->kv_shrunk);
  EXPECT_EQ(tight->kv_bytes, 1024 * kMib - tight->weights.bytes - 256 * kMib);
  EXPECT_THAT(std::string(Plan(options, 100 * kMib).status().message()),
              AllOf(HasSubstr("KV memory of 16 MiB do not fit into the 100 MiB"),
                    HasSubstr("--kv-memory-mb")));
}

TEST_F(MemoryPlanTest, WhatIsGivenIsKeptOrRefused) {
  const EngineOptions options{.kv_memory_bytes = 512 * kMib, .kv_memory_given = true};
  const auto fits = Plan(options, 600 * kMib);
  ASSERT_TRUE(fits.ok()) << fits.status();
  EXPECT_EQ(fits->kv_bytes, 512 * kMib);
  EXPECT_THAT(std::string(Plan(options, 500 * kMib).status().message()),
              HasSubstr("KV memory of 512 MiB do not fit into the 500 MiB"));
}

}  // namespace
}  // namespace structattn::engine
