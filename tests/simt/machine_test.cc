#include <gtest/gtest.h>

#include "kernels/cuda_ops.h"
#include "tests/simt/simt.h"
namespace structattn {
namespace {
TEST(SimtTest, Rms) {
  ASSERT_TRUE(HasOps(DeviceKind::kEmulated));
  std::vector<float> in(3 * 37, 2.0f), w(37, 1.0f), out(3 * 37);
  auto a = simt::ReadOnly(in), b = simt::ReadOnly(w), c = simt::Writable(out);
  RmsNorm({.device = DeviceKind::kEmulated}, {.input = in.data(),
                                              .weight = w.data(),
                                              .output = out.data(),
                                              .rows = 3,
                                              .columns = 37,
                                              .epsilon = 0});
  EXPECT_EQ(simt::Describe(simt::TakeReports()), "");
  for (float x : out) EXPECT_EQ(x, 1.0f);
}
}  // namespace
}  // namespace structattn
