// The CPU side of Attention, with a way to force an instruction set. It never asks for CUDA.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_

#include <string_view>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/thread_pool.h"

namespace structattn {

void AttentionCpu(ThreadPool& pool, const AttentionParams& params);

// AttentionCpu with the given kernel for bfloat16 KV; null takes the kernel in float.
void AttentionCpuWith(const AttentionKernel* bf16_kernel, ThreadPool& pool,
                      const AttentionParams& params);

// The kernel that AttentionCpu takes for bfloat16 KV of that shape; null means the kernel in float.
const AttentionKernel* BestBf16AttentionKernel(int head_dim);

// The band of the kernel that AttentionCpu takes.
RowBand AttentionCpuBand(DType dtype, int head_dim);

// "cpu/" and the instruction set chosen for this machine; then "+" and the kernel that bfloat16 KV
// gets instead, where there is one.
std::string_view AttentionCpuName();

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
