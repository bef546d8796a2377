// RmsNorm on CUDA. A row has one thread block. Up to kHeldColumns elements of it are read once and
// kept in registers between the sum and the product; what a longer row has beyond them is read
// twice.
#include "kernels/cuda/ops.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/norm/rms_norm.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

template <typename T, int kWidth>
struct RmsNormKernel {
  using Params = RmsNormParams;
  static constexpr const char* kName = "rms_norm";
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocks = 6;
  static constexpr int kMaxSharedBytes = BlockReduction<float, kThreads>::kSharedBytes;
  static constexpr int kHeld = 8;  // A thread keeps so many vectors.
  static constexpr int64_t kStep = int64_t{kThreads} * kWidth;
  static constexpr int64_t kHeldColumns = kHeld * kStep;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows), .shared_bytes = kMaxSharedBytes};
  }

  static __device__ float SumOfSquares(const float (&values)[kWidth], float sum) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum += values[i] * values[i];
    return sum;
  }

  static __device__ void Scale(T* to, float scale, float (&values)[kWidth], const float* weight) {
    float weights[kWidth];
    LoadFloats(weight, weights);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = values[i] * scale * weights[i];
    StoreFloats(to, values);
  }

  static __device__ void Run(const Params& p) {
    const int64_t row = BlockX();
    const float* input = p.input + row * p.columns;
    T* output = static_cast<T*>(p.output) + row * p.columns;
    const int64_t first = int64_t{ThreadIndex()} * kWidth;

    float held[kHeld][kWidth];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (first + i * kStep < p.columns) LoadFloats(input + first + i * kStep, held[i]);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (first + i * kStep < p.columns) squares = SumOfSquares(held[i], squares);
    }
    for (int64_t c = first + kHeldColumns; c < p.columns; c += kStep) {
      float values[kWidth];
      LoadFloats(input + c, values);
      squares = SumOfSquares(values, squares);
    }

    BlockReduction<float, kThreads> reduction(0);
    const float mean = reduction.Sum(squares) / static_cast<float>(p.columns);
    const float scale = 1.0f / sqrtf(mean + p.epsilon);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int64_t c = first + i * kStep;
      if (c < p.columns) Scale(output + c, scale, held[i], p.weight + c);
    }
    for (int64_t c = first + kHeldColumns; c < p.columns; c += kStep) {
      float values[kWidth];
      LoadFloats(input + c, values);
      Scale(output + c, scale, values, p.weight + c);
    }
  }
};

}  // namespace

void RmsNorm(const KernelContext& context, const RmsNormParams& params) {
  const bool aligned =
      IsVectorAligned(params.input, params.columns, sizeof(float)) &&
      IsVectorAligned(params.weight, params.columns, sizeof(float)) &&
      IsVectorAligned(params.output, params.columns, ByteSize(params.output_dtype));
  WithStorage(params.output_dtype, [&]<typename T>(T) {
    WithWidth(aligned, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
      using Kernel = RmsNormKernel<T, kWidth>;
      Launch<Kernel>(context, Kernel::Shape(params), params);
    });
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
