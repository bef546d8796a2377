// The table of the kernels that are built for the host emulator, for every program that links it.
#include "kernels/cuda/ops.cuh"

namespace structattn {

const CudaOps* EmulatedCudaOps() { return &emulated::kOps; }

}  // namespace structattn
