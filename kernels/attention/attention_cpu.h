// The CPU side of Attention. Called only by attention.cc, and by tests and benchmarks that force an
// instruction set.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_

#include <string_view>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/thread_pool.h"

namespace structattn {

void AttentionCpu(ThreadPool& pool, const AttentionParams& params);

// The same with a kernel of the caller's choice for bfloat16 KV; null: the one in float.
void AttentionCpuWith(const AttentionKernel* bf16_kernel, ThreadPool& pool,
                      const AttentionParams& params);

// What AttentionCpu takes for bfloat16 KV of that shape; null where it is the kernel in float.
const AttentionKernel* BestBf16AttentionKernel(int head_dim);

// The tile of the kernel that AttentionCpu takes.
RowBand AttentionCpuBand(DType dtype, int head_dim);

// "cpu/", the instruction set chosen for this machine, and "+" what bfloat16 KV gets instead.
std::string_view AttentionCpuName();

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
