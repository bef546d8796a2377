// Attention on CUDA: which kernels a call launches, and with which shapes. AttentionRefusal has
// refused the shapes that no kernel here takes.
#include "kernels/attention/attention.h"
#include "kernels/attention/flash_attention.cuh"
#include "kernels/attention/merge_splits.cuh"
#include "kernels/attention/row_attention.cuh"
#include "kernels/check.h"
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename Kernel>
void LaunchFor(const KernelContext& context, const typename Kernel::Params& params) {
  Launch<Kernel>(context, Kernel::Shape(params), params);
}

template <typename T, int kDims>
void LaunchFlash(const KernelContext& context, const AttentionParams& p) {
  LaunchFor<FlashAttentionKernel<T, kDims, false>>(context, p);
  LaunchFor<FlashAttentionKernel<T, kDims, true>>(context, p);
  LaunchFor<MergeSplitsKernel<T, kDims>>(context, p);
}

template <typename T>
void LaunchFlash(const KernelContext& context, const AttentionParams& p) {
  switch (p.kv.head_dim) {
    case 64:
      return LaunchFlash<T, 64>(context, p);
    case 80:
      return LaunchFlash<T, 80>(context, p);
    case 96:
      return LaunchFlash<T, 96>(context, p);
    case 128:
      return LaunchFlash<T, 128>(context, p);
    default:
      STRUCTATTN_CHECK(false);
  }
}

template <int kDimsPerLane>
void LaunchRows(const KernelContext& context, const AttentionParams& p) {
  using Kernel = RowAttentionKernel<kDimsPerLane>;
  LaunchFor<Kernel>(context, {p, p.tiles, p.tile_count});
  LaunchFor<Kernel>(context, {p, p.generated, p.generated_count});
}

}  // namespace

void Attention(const KernelContext& context, const AttentionParams& params) {
  STRUCTATTN_CHECK(params.output_dtype == params.kv.dtype);
  STRUCTATTN_CHECK(params.heads / params.kv.kv_heads <= kCudaTileRows);
  switch (params.kv.dtype) {
    case DType::kFloat32:
      return params.kv.head_dim <= 128 ? LaunchRows<4>(context, params)
                                       : LaunchRows<8>(context, params);
    case DType::kBfloat16:
      return LaunchFlash<Bfloat16>(context, params);
    case DType::kFloat16:
      return LaunchFlash<Float16>(context, params);
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
