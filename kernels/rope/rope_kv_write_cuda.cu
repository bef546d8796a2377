// Rotary embedding, q/k norm and the KV write on CUDA: one warp a (token, head) of q, k and v.
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_ops.h"

namespace structattn {
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
  return task.norm == nullptr ? task.input[dim] : task.input[dim] * task.scale * task.norm[dim];
}

// All lanes take part.
__device__ void SetScale(const RopeKvWriteParams& p, HeadTask& task) {
  if (task.norm == nullptr) return;
  float squares = 0.0f;
  for (int dim = threadIdx.x; dim < p.kv.head_dim; dim += kWarpSize) {
    squares += task.input[dim] * task.input[dim];
  }
  task.scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(p.kv.head_dim) + p.epsilon);
}

template <typename Out>
__device__ void Rotate(const RopeKvWriteParams& p, const HeadTask& task, Out* output) {
  const int half = p.kv.head_dim / 2;
  for (int i = threadIdx.x; i < half; i += kWarpSize) {
    const float cosine = p.cosine[task.token * half + i];
    const float sine = p.sine[task.token * half + i];
    const float first = Normalized(task, i);
    const float second = Normalized(task, half + i);
    output[i] = Narrow<Out>(first * cosine - second * sine);
    output[half + i] = Narrow<Out>(second * cosine + first * sine);
  }
}

// Where a token's key or value of one head lies: [block, head, offset, head_dim].
__device__ int64_t CacheOffset(const RopeKvWriteParams& p, int64_t token, int head) {
  const int64_t block = p.slots[token] / p.kv.block_size;
  const int64_t offset = p.slots[token] % p.kv.block_size;
  return ((block * p.kv.kv_heads + head) * p.kv.block_size + offset) * p.kv.head_dim;
}

template <typename T>
__global__ void RopeKvWriteKernel(RopeKvWriteParams p) {
  const int all_heads = p.heads + 2 * p.kv.kv_heads;
  const int64_t index = int64_t{blockIdx.x} * kHeadsPerBlock + threadIdx.y;
  if (index >= p.tokens * all_heads) return;  // The same for all lanes of the warp.
  const int head = static_cast<int>(index % all_heads);
  HeadTask task{.token = index / all_heads,
                .head = head,
                .input = p.qkv + index * p.kv.head_dim,
                .norm = nullptr};
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
  for (int dim = threadIdx.x; dim < p.kv.head_dim; dim += kWarpSize) {
    value[dim] = Narrow<T>(task.input[dim]);
  }
}

}  // namespace

void RopeKvWriteCuda(const KernelContext& context, const RopeKvWriteParams& params) {
  if (params.tokens == 0) return;
  const int64_t tasks = params.tokens * (params.heads + 2 * params.kv.kv_heads);
  WithStorage(params.kv.dtype, [&](auto storage) {
    RopeKvWriteKernel<decltype(storage)>
        <<<BlocksFor(tasks, kHeadsPerBlock), dim3(kWarpSize, kHeadsPerBlock), 0,
           static_cast<cudaStream_t>(context.stream)>>>(params);
  });
  CheckLaunch("rope_kv_write");
}

}  // namespace structattn
