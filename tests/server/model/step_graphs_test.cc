// StepGraphs: when a step is run as it is, when it is recorded, and when all are forgotten.
// Recorded steps are run again as functions here; on CUDA as graphs.
#include "server/model/step_graphs.h"

#include <gtest/gtest.h>

namespace structattn {
namespace {

class StepGraphsTest : public testing::Test {
 protected:
  // Runs `shape`'s step on the memory `kv`; which function really ran is in ran_.
  void Run(int32_t rows, int name, const void* kv = nullptr) {
    const std::function<void()> step = [this, name] { ran_ = name; };
    graphs_.Run({.device = DeviceKind::kEmulated},
                {.shape = {.rows = rows}, .kv = kv, .step = step});
  }

  StepGraphs graphs_;
  int ran_ = 0;
};

TEST_F(StepGraphsTest, RecordsTheSecondTimeAndRunsThatFromThenOn) {
  Run(4, 1);
  EXPECT_EQ(ran_, 1);
  EXPECT_EQ(graphs_.recorded(), 0);
  Run(4, 2);
  EXPECT_EQ(ran_, 2);
  EXPECT_EQ(graphs_.recorded(), 1);
  Run(4, 3);
  EXPECT_EQ(ran_, 2);  // What was recorded, not what is given now.
  EXPECT_EQ(graphs_.recorded(), 1);
  EXPECT_EQ(graphs_.replayed(), 2);
}

TEST_F(StepGraphsTest, OtherShapesAndOtherMemoryAreOtherSteps) {
  const int memory = 0;
  for (int i = 0; i < 2; ++i) Run(4, 1);
  Run(5, 2);
  EXPECT_EQ(ran_, 2);
  Run(4, 3, &memory);
  EXPECT_EQ(ran_, 3);
  Run(4, 4);
  EXPECT_EQ(ran_, 1);
}

TEST_F(StepGraphsTest, ClearForgetsAll) {
  for (int i = 0; i < 2; ++i) Run(4, 1);
  graphs_.Clear();
  Run(4, 2);
  EXPECT_EQ(ran_, 2);
  EXPECT_EQ(graphs_.recorded(), 1);
}

TEST_F(StepGraphsTest, KeepsABoundedNumber) {
  for (int i = 0; i < 2; ++i) Run(1, 1);
  for (int rows = 2; rows <= 1 + static_cast<int>(StepGraphs::kMost); ++rows) Run(rows, 2);
  Run(1, 3);
  EXPECT_EQ(ran_, 3);  // Forgotten with the others.
}

TEST_F(StepGraphsTest, AStepThatThrowsIsNotKept) {
  const std::function<void()> broken = [] { throw std::runtime_error("broken on purpose"); };
  EXPECT_THROW(graphs_.Run({.device = DeviceKind::kEmulated},
                           {.shape = {.rows = 1}, .kv = nullptr, .step = broken}),
               std::runtime_error);
  Run(1, 1);
  EXPECT_EQ(graphs_.recorded(), 0);
}

}  // namespace
}  // namespace structattn
