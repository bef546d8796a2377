// RMS norm on CUDA: one warp a row.
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

constexpr int kRowsPerBlock = 4;

template <typename T>
__global__ void RmsNormKernel(RmsNormParams p) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (row >= p.rows) return;  // The same for all lanes of the warp.
  const float* input = p.input + row * p.columns;
  float squares = 0.0f;
  for (int64_t c = threadIdx.x; c < p.columns; c += kWarpSize) squares += input[c] * input[c];
  const float mean = WarpSum(squares) / static_cast<float>(p.columns);
  const float scale = 1.0f / sqrtf(mean + p.epsilon);
  T* output = static_cast<T*>(p.output) + row * p.columns;
  for (int64_t c = threadIdx.x; c < p.columns; c += kWarpSize) {
    output[c] = Narrow<T>(input[c] * scale * p.weight[c]);
  }
}

}  // namespace

void RmsNormCuda(const KernelContext& context, const RmsNormParams& params) {
  if (params.rows == 0) return;
  WithStorage(params.output_dtype, [&](auto storage) {
    RmsNormKernel<decltype(storage)>
        <<<BlocksFor(params.rows, kRowsPerBlock), dim3(kWarpSize, kRowsPerBlock), 0,
           static_cast<cudaStream_t>(context.stream)>>>(params);
  });
  CheckLaunch("rms_norm");
}

}  // namespace structattn
