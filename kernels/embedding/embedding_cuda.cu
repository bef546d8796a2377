// Embedding gather on CUDA: one block a row.
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void EmbeddingKernel(EmbeddingParams p) {
  const int64_t row = blockIdx.x;
  const T* from = static_cast<const T*>(p.table) + int64_t{p.ids[row]} * p.columns;
  float* to = p.output + row * p.columns;
  for (int64_t c = threadIdx.x; c < p.columns; c += kThreads) to[c] = Widen(from[c]);
}

}  // namespace

void EmbeddingCuda(const KernelContext& context, const EmbeddingParams& params) {
  if (params.rows == 0) return;
  WithStorage(params.table_dtype, [&](auto storage) {
    EmbeddingKernel<decltype(storage)><<<static_cast<unsigned>(params.rows), kThreads, 0,
                                         static_cast<cudaStream_t>(context.stream)>>>(params);
  });
  CheckLaunch("embedding");
}

}  // namespace structattn
