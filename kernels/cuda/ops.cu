// The table of the kernels that nvcc has built. The emulator's table is not here (tests/simt).
#include "kernels/cuda/ops.cuh"

namespace structattn {

const CudaOps* CompiledCudaOps() { return &cuda::kOps; }

}  // namespace structattn
