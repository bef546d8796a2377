// Which device a model runs on, and LibTorch's CUDA half brought in only when it is asked for.
// Used by model.cc and the transformer. Loading libtorch_cuda costs hundreds of megabytes, so a
// server on CPU never does; the same binary serves both.
#ifndef STRUCTATTN_SERVER_MODEL_DEVICE_H_
#define STRUCTATTN_SERVER_MODEL_DEVICE_H_

#include "absl/status/statusor.h"
#include "kernels/context.h"
#include "server/model/model.h"

namespace structattn {

// kAuto becomes CUDA when an NVIDIA driver and the CUDA build are there, else CPU. kCuda without
// either is FAILED_PRECONDITION and says what is missing.
absl::StatusOr<DeviceKind> ChooseDevice(LoadOptions::Device wanted);

// The raw stream that LibTorch launches on for the current CUDA device (a cudaStream_t).
void* CurrentCudaStream();

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DEVICE_H_
