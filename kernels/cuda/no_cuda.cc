// Stands in for ops.cu and runtime.cu in a build without a CUDA compiler.
#include "kernels/check.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/runtime.h"

namespace structattn {

const CudaOps* CompiledCudaOps() { return nullptr; }

std::unique_ptr<RecordedStep> RecordCudaGraph(const KernelContext&, const std::function<void()>&) {
  STRUCTATTN_CHECK(false);  // No model runs on a device that has no ops.
  return nullptr;
}

int CudaDeviceCount() { return 0; }

int CudaComputeCapability(int) { return 0; }

bool CudaContextWorks(int) { return false; }

}  // namespace structattn
