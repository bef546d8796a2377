// Structured attention over a paged KV cache: out = softmax(q k^T / sqrt(d)) v over visible keys.
// It never reads a key outside the work-list's intervals.
//
// The bits of one output row depend only on its query, and on its visible keys and values in order.
// They do not depend on tile, batch, block placement, block size, chunking or number of threads. On
// CUDA they also depend on the row's list: prompts are query tiles, and generated tokens are decode
// tiles, whose keys are split. A row that sees no key is zero.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/attention/work_list.h"
#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

// One layer's KV cache. A block holds block_size consecutive tokens of one sequence for all
// KV heads.
// CPU:  key   [blocks, kv_heads, head_dim, block_size]: 16 keys of one dim lie side by side
//       key in bfloat16 [blocks, kv_heads, head_dim / 2, block_size, 2]: dims lie in pairs
//       value [blocks, kv_heads, block_size, head_dim]
// CUDA: key and value [blocks, kv_heads, block_size, head_dim]
struct KvLayerView {
  void* key = nullptr;
  void* value = nullptr;
  DType dtype = DType::kFloat32;
  int32_t block_size = 0;  // A multiple of 16.
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // A multiple of 16; AttentionRefusal says which a device takes.
};

// With bfloat16 KV the query is rounded to bfloat16 first, and the softmax's weights may be.
struct AttentionParams {
  const float* query = nullptr;  // [tokens, heads, head_dim]
  void* output = nullptr;        // [tokens, heads, head_dim] in output_dtype
  DType output_dtype = DType::kFloat32;
  KvLayerView kv;
  int32_t heads = 0;   // A multiple of kv.kv_heads.
  float scale = 0.0f;  // Multiplies q k^T, usually 1 / sqrt(head_dim).
  // Slot i of sequence s lies in block block_tables[s * block_table_stride + i / block_size].
  const int32_t* block_tables = nullptr;
  int32_t block_table_stride = 0;
  // The arrays of a WorkList that was made for the device's Tiling.
  const QueryTile* tiles = nullptr;
  int32_t tile_count = 0;
  const KeyInterval* intervals = nullptr;
  const QueryTile* generated = nullptr;  // The decode tiles.
  int32_t generated_count = 0;
  const KeySplit* splits = nullptr;
  int32_t split_count = 0;
  // On CUDA, PartialFloats(work.partials, heads, head_dim) floats that a call may overwrite.
  float* partials = nullptr;
};

// Query tokens of a tile on the CPU share one pass over keys and values in the cache. A short tile
// costs no more than its rows, so short groups lose nothing.
inline constexpr int kCpuTileRows = 96;
// Rows of a query tile on CUDA, which are query tokens x query heads of one KV head.
inline constexpr int kCudaTileRows = 64;

// How the queries of a step are to be cut.
struct Tiling {
  int tile_tokens = kCpuTileRows;  // Query tokens of a tile, at most.
  // 0 makes generated tokens query tiles like those of a prompt. Any other number makes them decode
  // tiles (WorkList::generated) with split-KV, and lets so many branches of a family share a split.
  int split_kv_branches = 0;
  // The model's sliding window: the layers that have it get a work-list of their own.
  int32_t window = kNoWindow;
};

// `ratio` is the number of query heads of one KV head.
// A device says nothing of windows.
Tiling AttentionTiling(DeviceKind device, int ratio);

// Floats that `partials` partial results take. One has, for each query head, the largest score, the
// sum and the weighted values of one split.
constexpr int64_t PartialFloats(int32_t partials, int32_t heads, int32_t head_dim) {
  return int64_t{partials} * heads * (head_dim + 2);
}

// The heads that a model has.
struct AttentionHeads {
  DType dtype = DType::kFloat32;  // The storage type of KV and output.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Why Attention cannot run such heads on that device, "head_dim 112: supported on CUDA are 64, 80,
// 96, 128"; empty when it can.
std::string AttentionRefusal(DeviceKind device, const AttentionHeads& asked);

// The heads are such that AttentionRefusal lets them pass.
void Attention(const KernelContext& context, const AttentionParams& params);

// The kernel and instruction set that Attention takes on the device, as in "cpu/AVX3+AVX512_BF16".
std::string_view AttentionKernelName(DeviceKind device);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_H_
