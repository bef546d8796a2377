// Stands in for cuda/ops.cu in a build without a CUDA compiler.
#include "kernels/cuda_ops.h"

namespace structattn {

const CudaOps* CompiledCudaOps() { return nullptr; }

}  // namespace structattn
