// The CPU side of Attention. Called only by attention.cc, and by tests that force an instruction
// set.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_

#include <string_view>

#include "kernels/attention/attention.h"
#include "kernels/thread_pool.h"

namespace structattn {

void AttentionCpu(ThreadPool& pool, const AttentionParams& params);

// "cpu/" and the instruction set chosen for this machine.
std::string_view AttentionCpuName();

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_H_
