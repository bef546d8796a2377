// Attention on CUDA: which kernels a call launches, and with which shapes.
#include <stdexcept>

#include "kernels/attention/row_attention.cuh"
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <int kDimsPerLane>
void LaunchRows(const KernelContext& context, const AttentionParams& p) {
  using Kernel = RowAttentionKernel<kDimsPerLane>;
  const RowAttentionParams tiles = {p, p.tiles, p.tile_count};
  const RowAttentionParams generated = {p, p.generated, p.generated_count};
  Launch<Kernel>(context, Kernel::Shape(tiles), tiles);
  Launch<Kernel>(context, Kernel::Shape(generated), generated);
}

}  // namespace

void Attention(const KernelContext& context, const AttentionParams& params) {
  if (params.output_dtype != params.kv.dtype) {
    throw std::runtime_error("attention: output and KV differ in dtype; CUDA takes only one");
  }
  if (params.kv.head_dim <= 64) return LaunchRows<2>(context, params);
  if (params.kv.head_dim <= 128) return LaunchRows<4>(context, params);
  return LaunchRows<8>(context, params);
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
