// Where a kernel runs: the device, and its CPU threads or its CUDA stream. Nothing here owns them.
#ifndef STRUCTATTN_KERNELS_CONTEXT_H_
#define STRUCTATTN_KERNELS_CONTEXT_H_

#include "kernels/thread_pool.h"

namespace structattn {

// kEmulated runs the CUDA sources on the host (tests/simt), with tensors in host memory. Only
// programs of the tests have it.
enum class DeviceKind { kCpu, kCuda, kEmulated };

// One device of this machine.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // kCuda: the GPU's place among those that CUDA shows to this process.

  friend bool operator==(const Device&, const Device&) = default;
};

struct KernelContext {
  DeviceKind device = DeviceKind::kCpu;
  ThreadPool* pool = nullptr;  // kCpu: not null.
  void* stream = nullptr;      // kCuda: a cudaStream_t of the thread's current GPU.
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CONTEXT_H_
