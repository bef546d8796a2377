// SiluMul on CUDA. A thread has four elements, and each is read and written once.
#include "kernels/activation/silu_mul.h"
#include "kernels/cuda/ops.cuh"
#include "kernels/cuda/vector.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename T, int kWidth>
struct SiluMulKernel {
  using Params = SiluMulParams;
  static constexpr const char* kName = "silu_mul";
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocks = 4;
  static constexpr int kMaxSharedBytes = 0;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows) * BlocksFor(p.columns, kThreads * kWidth)};
  }

  static __device__ void Run(const Params& p) {
    const auto [row, column] = PlaceInRows<kThreads, kWidth>(p.columns);
    if (column >= p.columns) return;
    const float* gate_up = p.gate_up + row * 2 * p.columns + column;
    float gate[kWidth];
    float up[kWidth];
    LoadFloats(gate_up, gate);
    LoadFloats(gate_up + p.columns, up);
    float product[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) product[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    StoreFloats(static_cast<T*>(p.output) + row * p.columns + column, product);
  }
};

}  // namespace

void SiluMul(const KernelContext& context, const SiluMulParams& params) {
  const bool aligned =
      IsVectorAligned(params.gate_up, params.columns, sizeof(float)) &&
      IsVectorAligned(params.output, params.columns, ByteSize(params.output_dtype));
  WithStorage(params.output_dtype, [&]<typename T>(T) {
    WithWidth(aligned, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
      using Kernel = SiluMulKernel<T, kWidth>;
      Launch<Kernel>(context, Kernel::Shape(params), params);
    });
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
