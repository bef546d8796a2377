// Which devices are refused, and in which words.
#include "server/model/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace structattn {
namespace {

using ::testing::HasSubstr;

TEST(CheckComputeCapabilityTest, RefusesGpusOlderThanTheKernels) {
  for (const int capability : {80, 86, 89, 90, 100, 120}) {
    EXPECT_TRUE(CheckComputeCapability(capability).ok()) << capability;
  }
  EXPECT_THAT(std::string(CheckComputeCapability(75).message()),
              HasSubstr("compute capability 7.5: 8.0 or newer is needed"));
  EXPECT_THAT(std::string(CheckComputeCapability(0).message()), HasSubstr("no usable GPU"));
  EXPECT_EQ(CheckComputeCapability(61).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ChooseDeviceTest, TheEmulatedDeviceIsRefusedOutsideTheTestsPrograms) {
  EXPECT_EQ(ChooseDevice(LoadOptions::Device::kEmulated).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*ChooseDevice(LoadOptions::Device::kCpu), DeviceKind::kCpu);
}

}  // namespace
}  // namespace structattn
