// See device.h.
#include "server/model/device.h"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/attention/attention.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/runtime.h"
#include "kernels/rope/rope_kv_write.h"
#include "server/model/device_name.h"
#include "server/model/padded_heads.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr int kLeastComputeCapability = 80;  // deploy/cmake/cuda.cmake builds for 8.0 and newer.

constexpr absl::string_view kNoUsableGpu = "the driver reports no usable GPU";

absl::Status RefuseDevice(const Device& device, absl::string_view reason) {
  return absl::FailedPreconditionError(absl::StrCat("device ", Name(device), ": ", reason));
}

// The driver makes one of these nodes, on Linux or in Windows' Linux subsystem.
bool HasNvidiaDriver() {
  return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

absl::Status LoadTorchCuda(const Device& device) {
  if (!HasOps(DeviceKind::kCuda)) return RefuseDevice(device, "this build has no CUDA kernels");
  if (!HasNvidiaDriver()) return RefuseDevice(device, "no NVIDIA driver on this machine");
  STRUCTATTN_RETURN_IF_ERROR(CheckGpu(
      device, {.count = CudaDeviceCount(), .capability = CudaComputeCapability(device.index)}));
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return RefuseDevice(device,
                        dlerror());  // NOLINT(concurrency-mt-unsafe): glibc's is a thread's.
  }
  if (!at::globalContext().hasCUDA()) return RefuseDevice(device, kNoUsableGpu);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGpu(const Device& device, const GpuFacts& facts) {
  if (facts.count > 0 && device.index >= facts.count) {
    return RefuseDevice(
        device, facts.count == 1 ? "the only GPU is cuda:0"
                                 : absl::StrCat("the GPUs are cuda:0 to cuda:", facts.count - 1));
  }
  if (facts.count <= 0 || facts.capability <= 0) return RefuseDevice(device, kNoUsableGpu);
  if (facts.capability >= kLeastComputeCapability) return absl::OkStatus();
  return RefuseDevice(device, absl::StrCat("the GPU has compute capability ", facts.capability / 10,
                                           ".", facts.capability % 10, ": 8.0 or newer is needed"));
}

absl::StatusOr<Device> ChooseDevice(const std::optional<Device>& wanted) {
  const Device device = wanted.value_or(Device{.kind = DeviceKind::kCuda});
  switch (device.kind) {
    case DeviceKind::kCpu:
      return device;
    case DeviceKind::kEmulated:
      if (HasOps(DeviceKind::kEmulated)) return device;
      return RefuseDevice(device, "only in programs of the tests");
    case DeviceKind::kCuda:
      break;
  }
  absl::Status loaded = LoadTorchCuda(device);
  if (loaded.ok()) return device;
  if (wanted.has_value()) return loaded;
  return Device{.kind = DeviceKind::kCpu};
}

absl::Status CheckShape(const Device& device, const ModelConfig& config, DType dtype) {
  if (config.mixture.has_value() && device.kind != DeviceKind::kCpu) {
    return absl::FailedPreconditionError(
        absl::StrCat("num_experts ", config.mixture->experts,
                     ": mixtures of experts run on the CPU alone (--device cpu)"));
  }
  const int64_t head_dim = PaddedHeads::PaddedDim(config.head_dim);
  const std::string refusals[] = {AttentionRefusal(device.kind, {.dtype = dtype,
                                                                 .heads = config.heads,
                                                                 .kv_heads = config.kv_heads,
                                                                 .head_dim = head_dim}),
                                  RopeKvWriteRefusal(device.kind, head_dim)};
  for (const std::string& refusal : refusals) {
    if (refusal.empty()) continue;
    if (head_dim == config.head_dim) return absl::FailedPreconditionError(refusal);
    return absl::FailedPreconditionError(
        absl::StrCat("head_dim ", config.head_dim, " runs as ", head_dim, "; ", refusal));
  }
  return absl::OkStatus();
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

c10::Device ToTorchDevice(const Device& device) {
  if (device.kind != DeviceKind::kCuda) return c10::Device(at::kCPU);
  return c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device.index));
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

std::optional<c10::Stream> NewStream(const Device& device) {
  if (device.kind != DeviceKind::kCuda) return std::nullopt;
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  return guard.getStreamFromGlobalPool(ToTorchDevice(device));
}

}  // namespace structattn
