// The seam between AttentionCpu and the kernels that multiply pairs of bfloat16 in one instruction.
// It never shows which instruction set is behind it.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_KERNEL_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_KERNEL_H_

#include <string_view>

#include "kernels/attention/attention.h"

namespace structattn {

// The unit of parallel work: rows [row_begin, row_end) of one query tile and KV head, where row =
// token x query heads of the KV head + head. Items share nothing, and never allocate once their
// thread has warmed up.
struct AttentionItem {
  const AttentionParams* params;
  const QueryTile* tile;
  int kv_head;
  int row_begin;
  int row_end;
};

// Causality is rounded to bands: up to `rows` rows meet the key tiles that the last of them sees.
struct RowBand {
  int rows;
  int row_multiple;  // A band costs as much as the next multiple of so many rows.
};

// A kernel for bfloat16 KV. Queries and the softmax's weights are rounded to bfloat16.
struct AttentionKernel {
  std::string_view name;  // "AVX512_BF16"
  RowBand band;
  // Whether the kernel takes heads of so many dims.
  bool (*supports)(int head_dim);
  void (*run)(const AttentionItem& item);
};

// Null where the CPU lacks the instructions.
const AttentionKernel* Avx512Bf16AttentionKernel();
const AttentionKernel* AmxAttentionKernel();

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_KERNEL_H_
