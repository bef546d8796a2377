// RMS norm on CUDA: one warp a row.
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

constexpr int kRowsPerBlock = 4;

template <typename T>
struct RmsNormKernel {
  using Params = RmsNormParams;
  static constexpr const char* kName = "rms_norm";
  static constexpr int kThreads = kRowsPerBlock * kWarpSize;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 0;

  static __device__ void Run(const Params& p) {
    const int64_t row = int64_t{BlockX()} * kRowsPerBlock + WarpIndex();
    if (row >= p.rows) return;  // The same for all lanes of the warp.
    const float* input = p.input + row * p.columns;
    float squares = 0.0f;
    for (int64_t c = LaneIndex(); c < p.columns; c += kWarpSize) {
      const float value = LoadGlobal(input + c);
      squares += value * value;
    }
    const float mean = WarpSum(squares) / static_cast<float>(p.columns);
    const float scale = 1.0f / sqrtf(mean + p.epsilon);
    T* output = static_cast<T*>(p.output) + row * p.columns;
    for (int64_t c = LaneIndex(); c < p.columns; c += kWarpSize) {
      StoreGlobal(output + c, Narrow<T>(LoadGlobal(input + c) * scale * LoadGlobal(p.weight + c)));
    }
  }
};

}  // namespace

void RmsNorm(const KernelContext& context, const RmsNormParams& params) {
  WithStorage(params.output_dtype, [&]<typename T>(T) {
    Launch<RmsNormKernel<T>>(context, {.grid_x = BlocksFor(params.rows, kRowsPerBlock)}, params);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
