// What the decoder asks of the CUDA runtime beyond kernel launches, behind functions that hold no
// decision. runtime.cu makes the calls, and no_cuda.cc stands in where there is no CUDA compiler.
// Off CUDA a recorded step is the function itself, run again, so that all logic around it is the
// same on every device.
#ifndef STRUCTATTN_KERNELS_CUDA_RUNTIME_H_
#define STRUCTATTN_KERNELS_CUDA_RUNTIME_H_

#include <functional>
#include <memory>

#include "kernels/context.h"

namespace structattn {

// Work that was recorded once and may run again and again, on the memory that it was recorded on.
class RecordedStep {
 public:
  virtual ~RecordedStep() = default;
  // Runs on the context's stream and does not wait. Throws std::runtime_error when it is refused.
  virtual void Run(const KernelContext& context) = 0;
};

// Records what `step` launches on the context's stream, which must not be the default one. `step`
// neither waits nor allocates on the device, and nothing of it runs before RecordedStep::Run.
// Throws what `step` throws, and std::runtime_error when it cannot be recorded.
std::unique_ptr<RecordedStep> Record(const KernelContext& context,
                                     const std::function<void()>& step);

// The CUDA side of Record, which makes a CUDA graph.
std::unique_ptr<RecordedStep> RecordCudaGraph(const KernelContext& context,
                                              const std::function<void()>& step);

// The number of GPUs that CUDA shows to this process; 0 when it cannot be asked.
int CudaDeviceCount();

// 10 x major + minor of GPU `index`; 0 when there is none or it cannot be asked.
int CudaComputeCapability(int index);

// Whether GPU `index` still takes work: false once an error has broken its context, after which
// every call fails until the process ends. Waits for the work under way.
bool CudaContextWorks(int index);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_RUNTIME_H_
