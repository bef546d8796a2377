// The CUDA side of every op, called only by the op's seam (norm/rms_norm.cc, ...). Defined in the
// op's *_cuda.cu, or in no_cuda.cc where the build has no CUDA compiler.
#ifndef STRUCTATTN_KERNELS_CUDA_OPS_H_
#define STRUCTATTN_KERNELS_CUDA_OPS_H_

#include <string_view>

#include "kernels/activation/silu_mul.h"
#include "kernels/attention/attention.h"
#include "kernels/context.h"
#include "kernels/embedding/embedding.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_kv_write.h"

namespace structattn {

void AttentionCuda(const KernelContext& context, const AttentionParams& params);
void EmbeddingCuda(const KernelContext& context, const EmbeddingParams& params);
void RmsNormCuda(const KernelContext& context, const RmsNormParams& params);
void RopeKvWriteCuda(const KernelContext& context, const RopeKvWriteParams& params);
void SiluMulCuda(const KernelContext& context, const SiluMulParams& params);

// For provenance: "cuda/..."; empty in a build without CUDA kernels.
std::string_view AttentionCudaName();

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_OPS_H_
