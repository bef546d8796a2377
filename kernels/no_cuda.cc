// Stands in for cuda/ops.cu and cuda/runtime.cu in a build without a CUDA compiler.
#include "kernels/check.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda_ops.h"

namespace structattn {

const CudaOps* CompiledCudaOps() { return nullptr; }

std::unique_ptr<RecordedStep> RecordCudaGraph(const KernelContext&, const std::function<void()>&) {
  STRUCTATTN_CHECK(false);  // No model is on a device that has no ops.
  return nullptr;
}

int CudaComputeCapability() { return 0; }

bool CudaContextWorks() { return false; }

}  // namespace structattn
