// Attention for float32 storage, which tensor cores do not take. Each (query row, head) has a warp,
// with an online softmax over the row's visible keys in order and the dims of a head spread over
// the lanes. It never reads a key that the row does not see and needs no shared memory, and the
// bits of a row depend on its own visible keys alone. Query tiles and decode tiles are the same to
// it.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ROW_ATTENTION_CUH_
#define STRUCTATTN_KERNELS_ATTENTION_ROW_ATTENTION_CUH_

#include "kernels/attention/attention.h"
#include "kernels/attention/key_cursor.cuh"
#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// `tiles` is either of the work-list's two lists, the query tiles or the decode tiles.
struct RowAttentionParams {
  AttentionParams attention;
  const QueryTile* tiles;
  int32_t tile_count;
};

template <int kDimsPerLane>
struct RowAttentionKernel {
  using Params = RowAttentionParams;
  static constexpr const char* kName = "attention (float32)";
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kMinBlocks = kDimsPerLane <= 4 ? 9 : 5;
  static constexpr int kMaxSharedBytes = 0;

  // The running softmax of one row: the sum of exp(score - largest), and the values with the same
  // weights. A lane holds the dims lane, lane + 32, ...
  struct Row {
    float query[kDimsPerLane];
    float output[kDimsPerLane] = {};
    float largest = -INFINITY;
    float sum = 0.0f;
  };

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.tile_count),
            .grid_y = static_cast<unsigned>(p.attention.heads)};
  }

  static __device__ void Run(const Params& params) {
    const AttentionParams& p = params.attention;
    const QueryTile tile = LoadTile(params.tiles + BlockX());
    const int head = BlockY();
    for (int r = WarpIndex(); r < tile.query_count; r += kWarps) {
      const int64_t offset = (int64_t{tile.row_begin + r} * p.heads + head) * p.kv.head_dim;
      Row row;
      for (int i = 0; i < kDimsPerLane; ++i) {
        const int dim = LaneIndex() + i * kWarpSize;
        row.query[i] = dim < p.kv.head_dim ? LoadGlobal(p.query + offset + dim) : 0.0f;
      }
      SeeVisibleKeys(p, tile, {.keys = tile.KeysOfRow(r), .head = head}, row);
      Store(p, row, static_cast<float*>(p.output) + offset);
    }
  }

  struct Query {
    int keys;  // It sees so many of the first keys of its tile's intervals.
    int head;
  };

  static __device__ void SeeVisibleKeys(const AttentionParams& p, const QueryTile& tile,
                                        const Query& query, Row& row) {
    const int32_t* blocks = p.block_tables + int64_t{tile.sequence} * p.block_table_stride;
    const int kv_head = query.head / (p.heads / p.kv.kv_heads);
    int left = query.keys;
    for (int i = tile.interval_begin; i < tile.interval_end && left > 0; ++i) {
      const int begin = LoadGlobal(&p.intervals[i].begin);
      const int end = min(LoadGlobal(&p.intervals[i].end), begin + left);
      left -= end - begin;
      for (int key = begin; key < end; ++key) {
        const int64_t block = LoadGlobal(blocks + key / p.kv.block_size);
        const int64_t slot =
            (block * p.kv.kv_heads + kv_head) * p.kv.block_size + key % p.kv.block_size;
        SeeKey(p, slot * p.kv.head_dim, row);
      }
    }
  }

  static __device__ void SeeKey(const AttentionParams& p, int64_t offset, Row& row) {
    const float* key = static_cast<const float*>(p.kv.key) + offset;
    const float* value = static_cast<const float*>(p.kv.value) + offset;
    float product = 0.0f;
    for (int i = 0; i < kDimsPerLane; ++i) {
      const int dim = LaneIndex() + i * kWarpSize;
      if (dim < p.kv.head_dim) product += row.query[i] * LoadGlobal(key + dim);
    }
    const float score = WarpSum(product) * p.scale;
    const float largest = fmaxf(row.largest, score);
    const float keep = expf(row.largest - largest);  // This is 0 for the first key.
    const float weight = expf(score - largest);
    for (int i = 0; i < kDimsPerLane; ++i) {
      const int dim = LaneIndex() + i * kWarpSize;
      if (dim < p.kv.head_dim) {
        row.output[i] = row.output[i] * keep + weight * LoadGlobal(value + dim);
      }
    }
    row.sum = row.sum * keep + weight;
    row.largest = largest;
  }

  static __device__ void Store(const AttentionParams& p, const Row& row, float* output) {
    const float inverse = row.sum > 0.0f ? 1.0f / row.sum : 0.0f;
    for (int i = 0; i < kDimsPerLane; ++i) {
      const int dim = LaneIndex() + i * kWarpSize;
      if (dim < p.kv.head_dim) StoreGlobal(output + dim, row.output[i] * inverse);
    }
  }
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_ATTENTION_ROW_ATTENTION_CUH_
