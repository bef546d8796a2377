// Sends Int8Linear to the device of its context.
// Called by server/model, never for the CPU, which packs its own weights. Computes nothing itself.
#include "kernels/linear/int8_linear.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void Int8Linear(const KernelContext& context, const Int8LinearParams& params) {
  CudaOpsFor(context.device).int8_linear(context, params);
}

}  // namespace structattn
