// Structured attention on CUDA: one warp a (query row, head), online softmax over the row's visible
// keys in order, dims of a head spread over the lanes. Reads visible keys only and needs no shared
// memory; the bits of a row depend on its own visible keys alone.
#include <cmath>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_ops.h"

namespace structattn {
namespace {

constexpr int kWarpsPerBlock = 4;

// Running softmax of one row: sum of exp(score - largest), and the values weighted likewise.
template <int kDimsPerLane>
struct RowState {
  float query[kDimsPerLane];
  float output[kDimsPerLane] = {};
  float largest = -INFINITY;
  float sum = 0.0f;
};

// Dims of a head that a lane holds: lane, lane + 32, ... All lanes call this.
template <typename T, int kDimsPerLane>
__device__ void SeeKey(const AttentionParams& p, int64_t offset, RowState<kDimsPerLane>& row) {
  const T* key = static_cast<const T*>(p.kv.key) + offset;
  const T* value = static_cast<const T*>(p.kv.value) + offset;
  float product = 0.0f;
  for (int i = 0; i < kDimsPerLane; ++i) {
    const int dim = threadIdx.x + i * kWarpSize;
    if (dim < p.kv.head_dim) product += row.query[i] * Widen(key[dim]);
  }
  const float score = WarpSum(product) * p.scale;
  const float largest = fmaxf(row.largest, score);
  const float keep = expf(row.largest - largest);  // 0 for the first key.
  const float weight = expf(score - largest);
  for (int i = 0; i < kDimsPerLane; ++i) {
    const int dim = threadIdx.x + i * kWarpSize;
    if (dim < p.kv.head_dim) row.output[i] = row.output[i] * keep + weight * Widen(value[dim]);
  }
  row.sum = row.sum * keep + weight;
  row.largest = largest;
}

template <typename T, int kDimsPerLane>
__device__ void SeeVisibleKeys(const AttentionParams& p, const QueryTile& tile, int query_index,
                               int head, RowState<kDimsPerLane>& row) {
  const int32_t* blocks = p.block_tables + int64_t{tile.sequence} * p.block_table_stride;
  const int kv_head = head / (p.heads / p.kv.kv_heads);
  for (int i = tile.interval_begin; i < tile.interval_end; ++i) {
    const int end = min(p.intervals[i].end, query_index + 1);
    for (int key = p.intervals[i].begin; key < end; ++key) {
      const int64_t block = blocks[key / p.kv.block_size];
      const int64_t slot =
          (block * p.kv.kv_heads + kv_head) * p.kv.block_size + key % p.kv.block_size;
      SeeKey<T>(p, slot * p.kv.head_dim, row);
    }
  }
}

template <int kDimsPerLane, typename Out>
__device__ void StoreRow(const AttentionParams& p, const RowState<kDimsPerLane>& row, Out* output) {
  const float inverse = row.sum > 0.0f ? 1.0f / row.sum : 0.0f;
  for (int i = 0; i < kDimsPerLane; ++i) {
    const int dim = threadIdx.x + i * kWarpSize;
    if (dim < p.kv.head_dim) output[dim] = Narrow<Out>(row.output[i] * inverse);
  }
}

// T is the storage type of KV and of the output. Grid: tiles x heads.
template <typename T, int kDimsPerLane>
__global__ void AttentionKernel(AttentionParams p) {
  const QueryTile tile = p.tiles[blockIdx.x];
  const int head = blockIdx.y;
  for (int r = threadIdx.y; r < tile.query_count; r += kWarpsPerBlock) {
    const int64_t offset = (int64_t{tile.row_begin + r} * p.heads + head) * p.kv.head_dim;
    RowState<kDimsPerLane> row;
    for (int i = 0; i < kDimsPerLane; ++i) {
      const int dim = threadIdx.x + i * kWarpSize;
      row.query[i] = dim < p.kv.head_dim ? p.query[offset + dim] : 0.0f;
    }
    SeeVisibleKeys<T>(p, tile, tile.query_begin + r, head, row);
    StoreRow(p, row, static_cast<T*>(p.output) + offset);
  }
}

template <typename T, int kDimsPerLane>
void Launch(const KernelContext& context, const AttentionParams& params) {
  const dim3 grid(static_cast<unsigned>(params.tile_count), static_cast<unsigned>(params.heads));
  AttentionKernel<T, kDimsPerLane>
      <<<grid, dim3(kWarpSize, kWarpsPerBlock), 0, static_cast<cudaStream_t>(context.stream)>>>(
          params);
}

}  // namespace

void AttentionCuda(const KernelContext& context, const AttentionParams& params) {
  if (params.tile_count == 0) return;
  if (params.output_dtype != params.kv.dtype) {
    throw std::runtime_error("attention: output and KV differ in dtype; CUDA takes only one");
  }
  WithStorage(params.kv.dtype, [&](auto storage) {
    using T = decltype(storage);
    if (params.kv.head_dim <= 64) return Launch<T, 2>(context, params);
    if (params.kv.head_dim <= 128) return Launch<T, 4>(context, params);
    return Launch<T, 8>(context, params);
  });
  CheckLaunch("attention");
}

std::string_view AttentionCudaName() { return "cuda/warp-per-row"; }

}  // namespace structattn
