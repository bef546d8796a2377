// RopeKvWrite on CUDA. A thread holds four dims of the first half of a head and the four of the
// second half that they are rotated with; 8, 16 or 32 neighbouring lanes share a head of q, k or v.
#include <stdexcept>

#include "kernels/cuda/ops.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/rope/rope_kv_write.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

struct RopeKvWriteKernelParams {
  RopeKvWriteParams op;
  int lanes_per_head;  // A power of two; 2 x kVectorWidth times it is at least head_dim.
};

// What one thread works on: two vectors of one head of one token.
struct HeadSlice {
  int head;   // Counts the heads of q, then of k, then of v.
  int dim;    // The first vector begins here, the second head_dim / 2 further.
  bool used;  // Lanes past a head, and heads past the last, only join in the shuffles.
};

template <typename T>
struct RopeKvWriteKernel {
  using Params = RopeKvWriteKernelParams;
  static constexpr const char* kName = "rope_kv_write";
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocks = 8;
  static constexpr int kMaxSharedBytes = 0;
  static constexpr int kWidth = kVectorWidth;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.op.tokens),
            .grid_y = BlocksFor(int64_t{AllHeads(p.op)} * p.lanes_per_head, kThreads)};
  }

  static constexpr int AllHeads(const RopeKvWriteParams& p) { return p.heads + 2 * p.kv.kv_heads; }

  static __device__ void Run(const Params& params) {
    const RopeKvWriteParams& p = params.op;
    const int64_t token = BlockX();
    const int thread = BlockY() * kThreads + ThreadIndex();
    HeadSlice slice = {.head = thread / params.lanes_per_head,
                       .dim = thread % params.lanes_per_head * kWidth,
                       .used = false};
    const int half = p.kv.head_dim / 2;
    slice.used = slice.head < AllHeads(p) && slice.dim < half;

    float first[kWidth] = {};
    float second[kWidth] = {};
    if (slice.used) {
      const float* input = p.qkv + (token * AllHeads(p) + slice.head) * p.kv.head_dim + slice.dim;
      LoadFloats(input, first);
      LoadFloats(input + half, second);
    }
    if (p.query_norm != nullptr || p.key_norm != nullptr) {
      Normalize(params, slice, first, second);
    }
    if (!slice.used) return;
    if (slice.head < p.heads + p.kv.kv_heads) Rotate(p, token * half + slice.dim, first, second);
    if (slice.head < p.heads) {
      float* query = p.query + (token * p.heads + slice.head) * p.kv.head_dim + slice.dim;
      StoreFloats(query, first);
      StoreFloats(query + half, second);
      return;
    }
    if (LoadGlobal(p.slots + token) < 0) return;  // The row only fills up a recorded step.
    T* kept = CachePlace(p, token, slice.head - p.heads) + slice.dim;
    StoreFloats(kept, first);
    StoreFloats(kept + half, second);
  }

  // All lanes call it. A head without norm stays as it is: one of v, or of a model with one norm
  // only.
  static __device__ void Normalize(const Params& params, const HeadSlice& slice,
                                   float (&first)[kWidth], float (&second)[kWidth]) {
    const RopeKvWriteParams& p = params.op;
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares += first[i] * first[i] + second[i] * second[i];
    for (int lanes = params.lanes_per_head / 2; lanes > 0; lanes /= 2) {
      squares += ShuffleXor(squares, lanes);
    }
    const float* norm = slice.head < p.heads                   ? p.query_norm
                        : slice.head < p.heads + p.kv.kv_heads ? p.key_norm
                                                               : nullptr;
    if (!slice.used || norm == nullptr) return;
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(p.kv.head_dim) + p.epsilon);
    float weights[kWidth];
    LoadFloats(norm + slice.dim, weights);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) first[i] = first[i] * scale * weights[i];
    LoadFloats(norm + p.kv.head_dim / 2 + slice.dim, weights);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) second[i] = second[i] * scale * weights[i];
  }

  // `angle` is the index of the first dim's angle.
  static __device__ void Rotate(const RopeKvWriteParams& p, int64_t angle, float (&first)[kWidth],
                                float (&second)[kWidth]) {
    float cosine[kWidth];
    float sine[kWidth];
    LoadFloats(p.cosine + angle, cosine);
    LoadFloats(p.sine + angle, sine);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float x = first[i];
      const float y = second[i];
      first[i] = x * cosine[i] - y * sine[i];
      second[i] = y * cosine[i] + x * sine[i];
    }
  }

  // Where a token's key or value lies in [block, kv_head, offset, head_dim]. `head` counts the
  // heads of k, then of v.
  static __device__ T* CachePlace(const RopeKvWriteParams& p, int64_t token, int head) {
    const int64_t slot = LoadGlobal(p.slots + token);
    const int64_t block = slot / p.kv.block_size;
    const int64_t offset = slot % p.kv.block_size;
    const bool is_key = head < p.kv.kv_heads;
    T* const cache = static_cast<T*>(is_key ? p.kv.key : p.kv.value);
    const int kv_head = is_key ? head : head - p.kv.kv_heads;
    return cache + ((block * p.kv.kv_heads + kv_head) * p.kv.block_size + offset) * p.kv.head_dim;
  }
};

void RequireAligned(const void* base, size_t element_bytes, const char* name) {
  if (IsVectorAligned(base, kVectorWidth, element_bytes)) return;
  throw std::runtime_error(std::string("rope_kv_write: ") + name + " is not aligned to " +
                           std::to_string(kVectorWidth * element_bytes) + " bytes");
}

// Rows are whole heads, so aligned bases make every access aligned.
void RequireAligned(const RopeKvWriteParams& p) {
  RequireAligned(p.qkv, sizeof(float), "qkv");
  RequireAligned(p.query, sizeof(float), "query");
  RequireAligned(p.cosine, sizeof(float), "cosine");
  RequireAligned(p.sine, sizeof(float), "sine");
  RequireAligned(p.query_norm, sizeof(float), "query_norm");
  RequireAligned(p.key_norm, sizeof(float), "key_norm");
  RequireAligned(p.kv.key, ByteSize(p.kv.dtype), "key");
  RequireAligned(p.kv.value, ByteSize(p.kv.dtype), "value");
}

}  // namespace

void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params) {
  RequireAligned(params);
  const int vectors = params.kv.head_dim / (2 * kVectorWidth);
  const RopeKvWriteKernelParams p = {.op = params,
                                     .lanes_per_head = vectors <= 8    ? 8
                                                       : vectors <= 16 ? 16
                                                                       : kWarpSize};
  WithStorage(params.kv.dtype, [&]<typename T>(T) {
    Launch<RopeKvWriteKernel<T>>(context, RopeKvWriteKernel<T>::Shape(p), p);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
