// Embedding gather on CUDA: one block a row.
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename T>
struct EmbeddingKernel {
  using Params = EmbeddingParams;
  static constexpr const char* kName = "embedding";
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 0;

  static __device__ void Run(const Params& p) {
    const int64_t row = BlockX();
    const T* from = static_cast<const T*>(p.table) + int64_t{LoadGlobal(p.ids + row)} * p.columns;
    float* to = p.output + row * p.columns;
    for (int64_t c = ThreadIndex(); c < p.columns; c += kThreads) {
      StoreGlobal(to + c, Widen(LoadGlobal(from + c)));
    }
  }
};

}  // namespace

void Embedding(const KernelContext& context, const EmbeddingParams& params) {
  WithStorage(params.table_dtype, [&]<typename T>(T) {
    Launch<EmbeddingKernel<T>>(context, {.grid_x = static_cast<unsigned>(params.rows)}, params);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
