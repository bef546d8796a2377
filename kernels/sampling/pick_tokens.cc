// Sends PickTokens to the device of its context. Computes nothing itself.
#include "kernels/sampling/pick_tokens.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void PickTokens(const KernelContext& context, const PickTokensParams& params) {
  CudaOpsFor(context.device).pick_tokens(context, params);
}

}  // namespace structattn
