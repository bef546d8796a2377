// silu(gate) * up on CUDA: one thread an element.
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void SiluMulKernel(SiluMulParams p) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= p.rows * p.columns) return;
  const int64_t row = index / p.columns;
  const int64_t column = index % p.columns;
  const float* gate_up = p.gate_up + row * 2 * p.columns;
  const float gate = gate_up[column];
  const float silu = gate / (1.0f + expf(-gate));
  static_cast<T*>(p.output)[index] = Narrow<T>(silu * gate_up[p.columns + column]);
}

}  // namespace

void SiluMulCuda(const KernelContext& context, const SiluMulParams& params) {
  if (params.rows == 0) return;
  WithStorage(params.output_dtype, [&](auto storage) {
    SiluMulKernel<decltype(storage)><<<BlocksFor(params.rows * params.columns, kThreads), kThreads,
                                       0, static_cast<cudaStream_t>(context.stream)>>>(params);
  });
  CheckLaunch("silu_mul");
}

}  // namespace structattn
