// Which device a model runs on, what that device refuses, and LibTorch's side of it. LibTorch's
// CUDA half costs hundreds of megabytes, so a server on CPU never loads it, although the binary is
// the same.
#ifndef STRUCTATTN_SERVER_MODEL_DEVICE_H_
#define STRUCTATTN_SERVER_MODEL_DEVICE_H_

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/TensorOptions.h>

#include <optional>

#include "absl/status/statusor.h"
#include "kernels/context.h"
#include "kernels/dtype.h"
#include "server/model/model.h"

namespace structattn {

// The wanted device. Without a wish it is the first GPU when the CUDA build, an NVIDIA driver and a
// GPU that the kernels were built for are there, else the CPU. A wanted GPU that lacks one of them
// is FAILED_PRECONDITION, and the message says what is missing; so is kEmulated outside the
// programs of the tests.
absl::StatusOr<Device> ChooseDevice(const std::optional<Device>& wanted);

// What the driver says.
struct GpuFacts {
  int count;       // GPUs of this machine.
  int capability;  // 10 x major + minor of the wanted one; 0 when it cannot be asked.
};

// FAILED_PRECONDITION for a GPU that is not there, or that no kernel was built for.
absl::Status CheckGpu(const Device& device, const GpuFacts& facts);

// FAILED_PRECONDITION for a model of a shape that an op cannot run on the device.
absl::Status CheckShape(const Device& device, const ModelConfig& config, DType dtype);

c10::ScalarType ToScalarType(DType dtype);
// `type` is one of those three.
DType ToDType(c10::ScalarType type);
c10::Device ToTorchDevice(const Device& device);

// Options of host tensors that the device copies from or to without waiting.
c10::TensorOptions HostStaging(DeviceKind device);

// Marks the work given so far to the current stream. The first call makes `event`, which may be
// waited for. Off CUDA nothing is ever under way, and `event` stays empty.
void RecordOnCurrentStream(DeviceKind device, std::optional<c10::Event>* event);

// A stream of the GPU for one model alone, since LibTorch's default one cannot be recorded; nothing
// off CUDA. A stream guard makes its GPU the thread's current one.
std::optional<c10::Stream> NewStream(const Device& device);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DEVICE_H_
