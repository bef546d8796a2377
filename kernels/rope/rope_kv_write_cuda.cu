// Rotary embedding, q/k norm and the KV write on CUDA: one warp a (token, head) of q, k and v.
#include "kernels/cuda/ops.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

constexpr int kHeadsPerBlock = 4;

// What one warp works on.
struct HeadTask {
  int64_t token;
  int head;            // Within its kind.
  const float* input;  // [head_dim]
  const float* norm;   // [head_dim] or null.
  float scale = 1.0f;  // 1 / root mean square, when there is a norm.
};

__device__ float Normalized(const HeadTask& task, int dim) {
  const float value = LoadGlobal(task.input + dim);
  return task.norm == nullptr ? value : value * task.scale * LoadGlobal(task.norm + dim);
}

// All lanes take part.
__device__ void SetScale(const RopeKvWriteParams& p, HeadTask& task) {
  if (task.norm == nullptr) return;
  float squares = 0.0f;
  for (int dim = LaneIndex(); dim < p.kv.head_dim; dim += kWarpSize) {
    const float value = LoadGlobal(task.input + dim);
    squares += value * value;
  }
  task.scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(p.kv.head_dim) + p.epsilon);
}

template <typename Out>
__device__ void Rotate(const RopeKvWriteParams& p, const HeadTask& task, Out* output) {
  const int half = p.kv.head_dim / 2;
  for (int i = LaneIndex(); i < half; i += kWarpSize) {
    const float cosine = LoadGlobal(p.cosine + task.token * half + i);
    const float sine = LoadGlobal(p.sine + task.token * half + i);
    const float first = Normalized(task, i);
    const float second = Normalized(task, half + i);
    StoreGlobal(output + i, Narrow<Out>(first * cosine - second * sine));
    StoreGlobal(output + half + i, Narrow<Out>(second * cosine + first * sine));
  }
}

// Where a token's key or value of one head lies: [block, head, offset, head_dim].
__device__ int64_t CacheOffset(const RopeKvWriteParams& p, int64_t token, int head) {
  const int64_t slot = LoadGlobal(p.slots + token);
  const int64_t block = slot / p.kv.block_size;
  const int64_t offset = slot % p.kv.block_size;
  return ((block * p.kv.kv_heads + head) * p.kv.block_size + offset) * p.kv.head_dim;
}

// Of one token, one of q, k or v.
template <typename T>
__device__ void WriteHead(const RopeKvWriteParams& p, int head, HeadTask task) {
  if (head < p.heads) {
    task.norm = p.query_norm;
    SetScale(p, task);
    Rotate(p, task, p.query + (task.token * p.heads + head) * p.kv.head_dim);
    return;
  }
  task.head = (head - p.heads) % p.kv.kv_heads;
  const int64_t offset = CacheOffset(p, task.token, task.head);
  if (head < p.heads + p.kv.kv_heads) {
    task.norm = p.key_norm;
    SetScale(p, task);
    Rotate(p, task, static_cast<T*>(p.kv.key) + offset);
    return;
  }
  T* value = static_cast<T*>(p.kv.value) + offset;
  for (int dim = LaneIndex(); dim < p.kv.head_dim; dim += kWarpSize) {
    StoreGlobal(value + dim, Narrow<T>(LoadGlobal(task.input + dim)));
  }
}

template <typename T>
struct RopeKvWriteKernel {
  using Params = RopeKvWriteParams;
  static constexpr const char* kName = "rope_kv_write";
  static constexpr int kThreads = kHeadsPerBlock * kWarpSize;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMaxSharedBytes = 0;

  static __device__ void Run(const Params& p) {
    const int all_heads = p.heads + 2 * p.kv.kv_heads;
    const int64_t index = int64_t{BlockX()} * kHeadsPerBlock + WarpIndex();
    if (index >= p.tokens * all_heads) return;  // The same for all lanes of the warp.
    const int head = static_cast<int>(index % all_heads);
    WriteHead<T>(p, head,
                 {.token = index / all_heads,
                  .head = head,
                  .input = p.qkv + index * p.kv.head_dim,
                  .norm = nullptr});
  }
};

}  // namespace

void RopeKvWrite(const KernelContext& context, const RopeKvWriteParams& params) {
  const int64_t tasks = params.tokens * (params.heads + 2 * params.kv.kv_heads);
  WithStorage(params.kv.dtype, [&]<typename T>(T) {
    Launch<RopeKvWriteKernel<T>>(context, {.grid_x = BlocksFor(tasks, kHeadsPerBlock)}, params);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
