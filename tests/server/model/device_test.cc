// Devices by name, and which devices and models on them are refused, in which words.
#include "server/model/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/model/device_name.h"

namespace structattn {
namespace {

using ::testing::HasSubstr;

constexpr Device kCpu = {.kind = DeviceKind::kCpu};
constexpr Device kSecondGpu = {.kind = DeviceKind::kCuda, .index = 1};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(DeviceNameTest, NamesAreReadAndGiven) {
  EXPECT_EQ(*ParseDevice("auto"), std::nullopt);
  EXPECT_EQ(*ParseDevice("cpu"), kCpu);
  EXPECT_EQ(*ParseDevice("cuda"), (Device{.kind = DeviceKind::kCuda, .index = 0}));
  EXPECT_EQ(*ParseDevice("cuda:1"), kSecondGpu);
  for (const std::string name : {"cpu", "cuda:0", "cuda:1", "cuda:63"}) {
    EXPECT_EQ(Name(ParseDevice(name)->value()), name);
  }
  EXPECT_EQ(Name({.kind = DeviceKind::kEmulated}), "emulated");
}

TEST(DeviceNameTest, OtherTextIsRefusedWithWhatIsAllowed) {
  for (const std::string name : {"", "tpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1",
                                 "cuda: 1", "cuda:01", "cuda:1 ", "cuda:64", "cuda:4294967296"}) {
    const absl::Status status = ParseDevice(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(Message(status),
              "device '" + name + "': allowed are auto, cpu, cuda and cuda:N with N from 0 to 63");
  }
  // Only programs that have the emulator know its name.
  EXPECT_EQ(ParseDevice("emulated").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CheckGpuTest, RefusesGpusOlderThanTheKernels) {
  for (const int capability : {80, 86, 89, 90, 100, 120}) {
    EXPECT_TRUE(CheckGpu(kSecondGpu, {.count = 2, .capability = capability}).ok()) << capability;
  }
  const absl::Status old = CheckGpu(kSecondGpu, {.count = 2, .capability = 75});
  EXPECT_EQ(old.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(old),
            "device cuda:1: the GPU has compute capability 7.5: 8.0 or newer is needed");
}

TEST(CheckGpuTest, RefusesGpusThatAreNotThere) {
  const std::string none = "device cuda:1: the driver reports no usable GPU";
  EXPECT_EQ(Message(CheckGpu(kSecondGpu, {.count = 0, .capability = 0})), none);
  EXPECT_EQ(Message(CheckGpu(kSecondGpu, {.count = 2, .capability = 0})), none);
  EXPECT_EQ(Message(CheckGpu(kSecondGpu, {.count = 1, .capability = 0})),
            "device cuda:1: the only GPU is cuda:0");
  EXPECT_EQ(
      Message(CheckGpu({.kind = DeviceKind::kCuda, .index = 4}, {.count = 4, .capability = 0})),
      "device cuda:4: the GPUs are cuda:0 to cuda:3");
}

TEST(ChooseDeviceTest, TheEmulatedDeviceIsRefusedOutsideTheTestsPrograms) {
  EXPECT_EQ(ChooseDevice(Device{.kind = DeviceKind::kEmulated}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*ChooseDevice(kCpu), kCpu);
}

TEST(ToTorchDeviceTest, KeepsTheIndexOfAGpu) {
  EXPECT_EQ(ToTorchDevice(kCpu).str(), "cpu");
  EXPECT_EQ(ToTorchDevice({.kind = DeviceKind::kEmulated}).str(), "cpu");
  EXPECT_EQ(ToTorchDevice(kSecondGpu).str(), "cuda:1");
}

ModelConfig Config(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ModelConfig config;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = head_dim;
  return config;
}

TEST(CheckShapeTest, HeadDimsWithoutAKernelAreRefusedOnCuda) {
  for (const DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kEmulated}) {
    for (const DType dtype : {DType::kBfloat16, DType::kFloat16}) {
      for (int64_t head_dim = 16; head_dim <= 256; head_dim += 16) {
        const absl::Status status = CheckShape({.kind = kind}, Config(8, 2, head_dim), dtype);
        const bool supported =
            head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128;
        EXPECT_EQ(status.ok(), supported) << head_dim;
        if (supported) continue;
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_EQ(Message(status), "head_dim " + std::to_string(head_dim) +
                                       ": supported on CUDA are 64, 80, 96, 128");
      }
    }
  }
}

TEST(CheckShapeTest, OtherDevicesAndTypesTakeEveryHeadDim) {
  for (int64_t head_dim = 16; head_dim <= 256; head_dim += 16) {
    EXPECT_TRUE(CheckShape(kCpu, Config(8, 2, head_dim), DType::kBfloat16).ok()) << head_dim;
    EXPECT_TRUE(CheckShape(kSecondGpu, Config(8, 2, head_dim), DType::kFloat32).ok()) << head_dim;
  }
  for (const int64_t head_dim : {2, 8, 72, 100}) {  // Zeros make them a multiple of 16.
    EXPECT_TRUE(CheckShape(kCpu, Config(8, 2, head_dim), DType::kBfloat16).ok()) << head_dim;
  }
  for (const int64_t head_dim : {0, 264, 272}) {
    EXPECT_THAT(Message(CheckShape(kCpu, Config(8, 2, head_dim), DType::kBfloat16)),
                HasSubstr("supported are multiples of 16 up to 256"));
  }
}

TEST(CheckShapeTest, MixturesOfExpertsRunOnTheCpuAlone) {
  ModelConfig config = Config(8, 2, 64);
  config.mixture = {.experts = 60};
  EXPECT_TRUE(CheckShape(kCpu, config, DType::kBfloat16).ok());
  for (const DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kEmulated}) {
    const absl::Status status = CheckShape({.kind = kind}, config, DType::kBfloat16);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Message(status),
              "num_experts 60: mixtures of experts run on the CPU alone (--device cpu)");
  }
}

TEST(CheckShapeTest, MoreQueryHeadsThanATileHasRowsAreRefusedOnCuda) {
  EXPECT_TRUE(CheckShape(kSecondGpu, Config(64, 1, 64), DType::kBfloat16).ok());
  EXPECT_TRUE(CheckShape(kCpu, Config(65, 1, 64), DType::kBfloat16).ok());
  EXPECT_EQ(Message(CheckShape(kSecondGpu, Config(130, 2, 64), DType::kBfloat16)),
            "65 query heads of one KV head: supported on CUDA are up to 64");
}

}  // namespace
}  // namespace structattn
