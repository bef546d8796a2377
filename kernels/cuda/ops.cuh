// The launchers of all ops, declared once per namespace (nvcc's and the emulator's). Each op's
// *_cuda.cu defines its own; nothing here launches.
#ifndef STRUCTATTN_KERNELS_CUDA_OPS_CUH_
#define STRUCTATTN_KERNELS_CUDA_OPS_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

void Attention(const KernelContext& context, const AttentionParams& params);
void Embedding(const KernelContext& context, const EmbeddingParams& params);
void Linear(const KernelContext& context, const LinearParams& params);
void PickTokens(const KernelContext& context, const PickTokensParams& params);
void RmsNorm(const KernelContext& context, const RmsNormParams& params);
void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params);
void SiluMul(const KernelContext& context, const SiluMulParams& params);

inline constexpr CudaOps kOps = {.attention = &Attention,
                                 .embedding = &Embedding,
                                 .linear = &Linear,
                                 .pick_tokens = &PickTokens,
                                 .rms_norm = &RmsNorm,
                                 .rope_kv_write = &RopeKvWrite,
                                 .silu_mul = &SiluMul,
                                 .attention_name = "cuda/flash-mma"};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_CUDA_OPS_CUH_
