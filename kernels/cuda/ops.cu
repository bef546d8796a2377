// The table of the kernels built by nvcc.
#include "kernels/cuda/ops.cuh"

namespace structattn {

const CudaOps* CompiledCudaOps() { return &cuda::kOps; }

}  // namespace structattn
