// Embedding on CUDA. A thread gathers four elements.
#include "kernels/cuda/ops.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/embedding/embedding.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename T, int kWidth>
struct EmbeddingKernel {
  using Params = EmbeddingParams;
  static constexpr const char* kName = "embedding";
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocks = 8;
  static constexpr int kMaxSharedBytes = 0;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows) * BlocksFor(p.columns, kThreads * kWidth)};
  }

  static __device__ void Run(const Params& p) {
    const auto [row, column] = PlaceInRows<kThreads, kWidth>(p.columns);
    if (column >= p.columns) return;
    const int64_t from = LoadGlobal(p.ids + row) * p.columns + column;
    float values[kWidth];
    LoadFloats(static_cast<const T*>(p.table) + from, values);
    StoreFloats(p.output + row * p.columns + column, values);
  }
};

}  // namespace

void Embedding(const KernelContext& context, const EmbeddingParams& params) {
  const bool aligned =
      IsVectorAligned(params.table, params.columns, ByteSize(params.table_dtype)) &&
      IsVectorAligned(params.output, params.columns, sizeof(float));
  WithStorage(params.table_dtype, [&]<typename T>(T) {
    WithWidth(aligned, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
      using Kernel = EmbeddingKernel<T, kWidth>;
      Launch<Kernel>(context, Kernel::Shape(params), params);
    });
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
