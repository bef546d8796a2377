// The attention kernels that faults_test.py spoils, as a shared library for simt_faults. It has
// only those that the tests launch, so that each fault is built quickly, and is never part of a
// CMake target.
#include "kernels/attention/flash_attention.cuh"
#include "kernels/attention/merge_splits.cuh"
#include "kernels/cuda/ops.cuh"

namespace structattn::emulated {
namespace {

template <typename Kernel>
void LaunchFor(const KernelContext& context, const AttentionParams& p) {
  Launch<Kernel>(context, Kernel::Shape(p), p);
}

template <typename T, int kDims>
void LaunchFlash(const KernelContext& context, const AttentionParams& p) {
  LaunchFor<FlashAttentionKernel<T, kDims, false>>(context, p);
  LaunchFor<FlashAttentionKernel<T, kDims, true>>(context, p);
  LaunchFor<MergeSplitsKernel<T, kDims>>(context, p);
}

void FaultyAttention(const KernelContext& context, const AttentionParams& p) {
  const KvLayerView& kv = p.kv;
  if (kv.dtype == DType::kBfloat16 && kv.head_dim == 64)
    return LaunchFlash<Bfloat16, 64>(context, p);
  if (kv.dtype == DType::kBfloat16 && kv.head_dim == 128)
    return LaunchFlash<Bfloat16, 128>(context, p);
  if (kv.dtype == DType::kFloat16 && kv.head_dim == 80) return LaunchFlash<Float16, 80>(context, p);
  emulated::Attention(context, p);  // The program's own kernel.
}

}  // namespace
}  // namespace structattn::emulated

extern "C" void StructattnInstall(structattn::CudaOps* ops) {
  ops->attention = &structattn::emulated::FaultyAttention;
}
