// silu(gate) * up on CUDA: one thread an element.
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename T>
struct SiluMulKernel {
  using Params = SiluMulParams;
  static constexpr const char* kName = "silu_mul";
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 0;

  static __device__ void Run(const Params& p) {
    const int64_t index = int64_t{BlockX()} * kThreads + ThreadIndex();
    if (index >= p.rows * p.columns) return;
    const int64_t row = index / p.columns;
    const int64_t column = index % p.columns;
    const float* gate_up = p.gate_up + row * 2 * p.columns;
    const float gate = LoadGlobal(gate_up + column);
    const float silu = gate / (1.0f + expf(-gate));
    StoreGlobal(static_cast<T*>(p.output) + index,
                Narrow<T>(silu * LoadGlobal(gate_up + p.columns + column)));
  }
};

}  // namespace

void SiluMul(const KernelContext& context, const SiluMulParams& params) {
  WithStorage(params.output_dtype, [&]<typename T>(T) {
    using Kernel = SiluMulKernel<T>;
    Launch<Kernel>(context, {.grid_x = BlocksFor(params.rows * params.columns, Kernel::kThreads)},
                   params);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
