// See device.h.
#include "server/model/device.h"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/runtime.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr int kLeastComputeCapability = 80;  // deploy/cmake/cuda.cmake builds for 8.0 and newer.

// The driver makes one of these nodes: Linux, or Windows' Linux subsystem.
bool HasNvidiaDriver() {
  return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

absl::Status LoadTorchCuda() {
  if (!HasOps(DeviceKind::kCuda)) {
    return absl::FailedPreconditionError("device cuda: this build has no CUDA kernels");
  }
  if (!HasNvidiaDriver()) {
    return absl::FailedPreconditionError("device cuda: no NVIDIA driver on this machine");
  }
  STRUCTATTN_RETURN_IF_ERROR(CheckComputeCapability(CudaComputeCapability()));
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("device cuda: ", dlerror()));
  }
  if (!at::globalContext().hasCUDA()) {
    return absl::FailedPreconditionError("device cuda: the driver reports no usable GPU");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckComputeCapability(int capability) {
  if (capability >= kLeastComputeCapability) return absl::OkStatus();
  if (capability <= 0) {
    return absl::FailedPreconditionError("device cuda: the driver reports no usable GPU");
  }
  return absl::FailedPreconditionError(absl::StrCat("device cuda: the GPU has compute capability ",
                                                    capability / 10, ".", capability % 10,
                                                    ": 8.0 or newer is needed"));
}

absl::StatusOr<DeviceKind> ChooseDevice(LoadOptions::Device wanted) {
  if (wanted == LoadOptions::Device::kCpu) return DeviceKind::kCpu;
  if (wanted == LoadOptions::Device::kEmulated) {
    if (HasOps(DeviceKind::kEmulated)) return DeviceKind::kEmulated;
    return absl::FailedPreconditionError("device emulated: only in programs of the tests");
  }
  const absl::Status loaded = LoadTorchCuda();
  if (loaded.ok()) return DeviceKind::kCuda;
  if (wanted == LoadOptions::Device::kCuda) return loaded;
  return DeviceKind::kCpu;
}

c10::ScalarType ToScalarType(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return at::kFloat;
    case DType::kBfloat16:
      return at::kBFloat16;
    case DType::kFloat16:
      return at::kHalf;
  }
  return at::kFloat;
}

DType ToDType(c10::ScalarType type) {
  if (type == at::kBFloat16) return DType::kBfloat16;
  return type == at::kHalf ? DType::kFloat16 : DType::kFloat32;
}

c10::Device ToTorchDevice(DeviceKind device) {
  return device == DeviceKind::kCuda ? c10::Device(at::kCUDA, 0) : c10::Device(at::kCPU);
}

c10::TensorOptions HostStaging(DeviceKind device) {
  return c10::TensorOptions(at::kByte).pinned_memory(device == DeviceKind::kCuda);
}

void RecordOnCurrentStream(DeviceKind device, std::optional<c10::Event>* event) {
  if (device != DeviceKind::kCuda) return;
  if (!event->has_value()) event->emplace(c10::DeviceType::CUDA);
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  (*event)->record(guard.getStream(guard.getDevice()));
}

std::optional<c10::Stream> NewStream(DeviceKind device) {
  if (device != DeviceKind::kCuda) return std::nullopt;
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  return guard.getStreamFromGlobalPool(ToTorchDevice(device));
}

}  // namespace structattn
