// See device.h.
#include "server/model/device.h"

#include <ATen/Context.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

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
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("device cuda: ", dlerror()));
  }
  if (!at::globalContext().hasCUDA()) {
    return absl::FailedPreconditionError("device cuda: the driver reports no usable GPU");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeviceKind> ChooseDevice(LoadOptions::Device wanted) {
  if (wanted == LoadOptions::Device::kCpu) return DeviceKind::kCpu;
  const absl::Status loaded = LoadTorchCuda();
  if (loaded.ok()) return DeviceKind::kCuda;
  if (wanted == LoadOptions::Device::kCuda) return loaded;
  return DeviceKind::kCpu;
}

void* CurrentCudaStream() {
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  return guard.getStream(guard.getDevice()).native_handle();
}

}  // namespace structattn
