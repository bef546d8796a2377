// Structured attention over a paged KV cache: out = softmax(q k^T / sqrt(d)) v over visible keys.
// Called once per layer by server/model/decoder. Reads no key outside the work-list's intervals.
//
// The bits of one output row depend only on its query, and on its visible keys and values in order:
// not on tile, batch, block placement, block size, chunking or number of threads. (On CUDA also on
// its list: tokens of a prompt are tiles, generated ones are split over keys.) A row that sees no
// key is zero.
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
// CPU:  key   [blocks, kv_heads, head_dim, block_size]  (transposed: 16 keys of one dim in a row)
//       in bfloat16 [blocks, kv_heads, head_dim / 2, block_size, 2]  (likewise, dims in pairs)
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

// Where the CPU's layout has one dim of a key. `slot` is block id * block_size + place in the
// block.
inline int64_t CpuKeyIndex(const KvLayerView& kv, int64_t slot, int64_t head, int64_t dim) {
  const int64_t begin = (slot / kv.block_size * kv.kv_heads + head) * kv.head_dim * kv.block_size;
  const int64_t offset = slot % kv.block_size;
  if (kv.dtype != DType::kBfloat16) return begin + dim * kv.block_size + offset;
  return begin + (dim / 2 * kv.block_size + offset) * 2 + dim % 2;
}

// Where the CPU's layout has one dim of a value.
inline int64_t CpuValueIndex(const KvLayerView& kv, int64_t slot, int64_t head, int64_t dim) {
  const int64_t block = slot / kv.block_size;
  return ((block * kv.kv_heads + head) * kv.block_size + slot % kv.block_size) * kv.head_dim + dim;
}

// With bfloat16 KV the query is rounded to bfloat16 first, and the softmax's weights may be.
struct AttentionParams {
  const float* query = nullptr;  // [tokens, heads, head_dim]
  void* output = nullptr;        // [tokens, heads, head_dim] of output_dtype.
  DType output_dtype = DType::kFloat32;
  KvLayerView kv;
  int32_t heads = 0;   // A multiple of kv.kv_heads.
  float scale = 0.0f;  // Multiplies q k^T, usually 1 / sqrt(head_dim).
  // Block ids of sequence s: block_tables[s * block_table_stride + index / block_size].
  const int32_t* block_tables = nullptr;
  int32_t block_table_stride = 0;
  // A work-list made for the device's Tiling.
  const QueryTile* tiles = nullptr;
  int32_t tile_count = 0;
  const KeyInterval* intervals = nullptr;
  const QueryTile* generated = nullptr;
  int32_t generated_count = 0;
  const KeySplit* splits = nullptr;
  int32_t split_count = 0;
  // CUDA: PartialFloats(work.partials, heads, head_dim) floats that a call may overwrite.
  float* partials = nullptr;
};

// Query tokens of a tile on the CPU: as many as share one pass over keys and values in the cache. A
// short tile costs no more than its rows, so nothing is lost where groups are short.
inline constexpr int kCpuTileRows = 96;
// Rows of a tile of the CUDA kernel: query tokens x query heads of one KV head.
inline constexpr int kCudaTileRows = 64;

// How a device wants the queries of a step cut.
struct Tiling {
  int tile_tokens = kCpuTileRows;  // Query tokens of a tile, at most.
  // 0: generated tokens are tiles like those of the prompt. Otherwise they go to
  // WorkList::generated, so many branches of a family together.
  int split_kv_branches = 0;
};

// `ratio`: query heads of one KV head.
Tiling AttentionTiling(DeviceKind device, int ratio);

// Floats of `partials` partial results: per query head the largest score, the sum and the weighted
// values of one split.
constexpr int64_t PartialFloats(int32_t partials, int32_t heads, int32_t head_dim) {
  return int64_t{partials} * heads * (head_dim + 2);
}

// What a model asks of Attention.
struct AttentionShape {
  DType dtype = DType::kFloat32;  // The storage type of KV and output.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Why Attention cannot run the shape on that device, "head_dim 112: supported on CUDA are 64, 80,
// 96, 128"; empty when it can.
std::string AttentionRefusal(DeviceKind device, const AttentionShape& shape);

// The shape is one that AttentionRefusal lets pass.
void Attention(const KernelContext& context, const AttentionParams& params);

// Kernel and instruction set that Attention uses there, for provenance: "cpu/AVX3+AVX512_BF16".
std::string_view AttentionKernelName(DeviceKind device);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_H_
