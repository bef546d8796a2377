// Sends Embedding to the device of its context. Computes nothing itself.
#include "kernels/embedding/embedding.h"

#include "kernels/cuda/ops.h"

namespace structattn {

void Embedding(const KernelContext& context, const EmbeddingParams& params) {
  if (context.device == DeviceKind::kCpu) return EmbeddingCpu(*context.pool, params);
  CudaOpsFor(context.device).embedding(context, params);
}

}  // namespace structattn
