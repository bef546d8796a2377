// y = x / sqrt(mean(x^2) + epsilon) * weight, row by row (Zhang & Sennrich 2019). Any number of
// columns is taken on every device.
#ifndef STRUCTATTN_KERNELS_NORM_RMS_NORM_H_
#define STRUCTATTN_KERNELS_NORM_RMS_NORM_H_

#include <cstdint>

#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

struct RmsNormParams {
  const float* input = nullptr;   // [rows, columns]
  const float* weight = nullptr;  // [columns]
  void* output = nullptr;         // [rows, columns] in output_dtype
  DType output_dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  float epsilon = 0.0f;
};

void RmsNorm(const KernelContext& context, const RmsNormParams& params);

// The CPU side of RmsNorm.
void RmsNormCpu(ThreadPool& pool, const RmsNormParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_NORM_RMS_NORM_H_
