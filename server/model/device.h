// Which device a model runs on, and LibTorch's CUDA half brought in only when it is asked for.
// Used by model.cc and the transformer. Loading libtorch_cuda costs hundreds of megabytes, so a
// server on CPU never does; the same binary serves both.
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

// kAuto becomes CUDA when the CUDA build, an NVIDIA driver and a GPU that the kernels were built
// for are there, else CPU. kCuda without one of them is FAILED_PRECONDITION and says what is
// missing; so is kEmulated outside the programs of the tests.
absl::StatusOr<DeviceKind> ChooseDevice(LoadOptions::Device wanted);

// FAILED_PRECONDITION for a compute capability (10 x major + minor) that no kernel was built for.
absl::Status CheckComputeCapability(int capability);

c10::ScalarType ToScalarType(DType dtype);
// Of one of those three types.
DType ToDType(c10::ScalarType type);
c10::Device ToTorchDevice(DeviceKind device);

// Of host bytes that the device copies from or to without waiting.
c10::TensorOptions HostStaging(DeviceKind device);

// Marks the work given so far to the current stream: `event` is made at the first call, and may be
// waited for. Off CUDA nothing is ever under way and `event` stays empty.
void RecordOnCurrentStream(DeviceKind device, std::optional<c10::Event>* event);

// A stream for one model alone, since LibTorch's default one cannot be recorded; nothing off CUDA.
std::optional<c10::Stream> NewStream(DeviceKind device);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DEVICE_H_
