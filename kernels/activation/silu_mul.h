// y = silu(gate) * up, the gated activation of LLaMA's and Qwen's MLP (Shazeer 2020, SwiGLU). Any
// number of columns is taken on every device.
#ifndef STRUCTATTN_KERNELS_ACTIVATION_SILU_MUL_H_
#define STRUCTATTN_KERNELS_ACTIVATION_SILU_MUL_H_

#include <cstdint>

#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

struct SiluMulParams {
  const float* gate_up = nullptr;  // [rows, 2 * columns]: gate, then up
  void* output = nullptr;          // [rows, columns] in output_dtype
  DType output_dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
};

void SiluMul(const KernelContext& context, const SiluMulParams& params);

// The CPU side of SiluMul.
void SiluMulCpu(ThreadPool& pool, const SiluMulParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ACTIVATION_SILU_MUL_H_
