// Everything that a kernel may ask of the device: indices, global and shared memory, asynchronous
// copies, tensor-core fragments, shuffles, barriers, launches. No other file holds inline assembly,
// a
// __shared__ array or a raw shared pointer. With STRUCTATTN_DEVICE_HEADER (tests/simt) the same
// kernels run on the host emulator instead, which checks each of these calls.
//
// "Block" in a name here is CUDA's thread block. These contracts hold on both machines:
// - Shared memory is one dynamic array, addressed by byte offset. Every hand-over through it is
//   ordered by BlockBarrier, never by lockstep or a shuffle.
// - Vectors are 1, 2, 4, 8 or 16 bytes and aligned to their size.
// - LoadMatrices, MultiplyAccumulate and the shuffles are warp collectives: all 32 lanes call them
//   in uniform control flow. All threads of the thread block call BlockBarrier.
// - A copied byte may be read after the copying thread's WaitCopies and then a BlockBarrier.
#ifndef STRUCTATTN_KERNELS_CUDA_DEVICE_CUH_
#define STRUCTATTN_KERNELS_CUDA_DEVICE_CUH_

#ifdef STRUCTATTN_DEVICE_HEADER
#include STRUCTATTN_DEVICE_HEADER
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/context.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/dtype.h"

#define STRUCTATTN_CUDA_NAMESPACE cuda

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// ---- Indices. Thread blocks are one-dimensional; grids have up to three dimensions.
__device__ inline int ThreadIndex() { return static_cast<int>(threadIdx.x); }
__device__ inline int LaneIndex() { return ThreadIndex() % kWarpSize; }
__device__ inline int WarpIndex() { return ThreadIndex() / kWarpSize; }
__device__ inline int BlockX() { return static_cast<int>(blockIdx.x); }
__device__ inline int BlockY() { return static_cast<int>(blockIdx.y); }
__device__ inline int BlockZ() { return static_cast<int>(blockIdx.z); }

// ---- Global memory.
template <typename V>
__device__ inline V LoadGlobal(const V* from) {
  return *from;
}
template <typename V>
__device__ inline void StoreGlobal(V* to, std::type_identity_t<V> value) {
  *to = value;
}

// ---- Shared memory, addressed by byte offset.
__device__ inline char* SharedBase() {
  extern __shared__ uint4 structattn_shared[];
  return reinterpret_cast<char*>(structattn_shared);
}
__device__ inline uint32_t SharedAddress(int offset) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(SharedBase())) + offset;
}
template <typename V>
__device__ inline V LoadShared(int offset) {
  return *reinterpret_cast<const V*>(SharedBase() + offset);
}
template <typename V>
__device__ inline void StoreShared(int offset, V value) {
  *reinterpret_cast<V*>(SharedBase() + offset) = value;
}

// ---- Asynchronous copies.

// Copies 16 bytes from global to shared memory. Without `valid` the bytes become zero, and `from`
// is not read.
__device__ inline void CopyAsync16(int offset, const void* from, bool valid) {
  asm volatile(
      "{\n"
      "  .reg .pred ignore;\n"
      "  setp.eq.s32 ignore, %2, 0;\n"
      "  cp.async.cg.shared.global [%0], [%1], 16, ignore;\n"
      "}\n" ::"r"(SharedAddress(offset)),
      "l"(__cvta_generic_to_global(from)), "r"(static_cast<int>(valid))
      : "memory");
}
// Commits this thread's copies since the last commit, which may be none.
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until at most the newest kCommits commits of this thread are under way.
template <int kCommits>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kCommits) : "memory");
}

__device__ inline void BlockBarrier() { __syncthreads(); }

// ---- Warp shuffles.
template <typename V>
__device__ inline V ShuffleXor(V value, int lanes) {
  return __shfl_xor_sync(kAllLanes, value, lanes);
}

// ---- Tensor cores. A fragment register holds two 16-bit elements, the first in the low half.

// Loads four 8 x 8 matrices of 16-bit elements. Lane l gives the offset of row l % 8 of matrix
// l / 8 (16 bytes, aligned), and gets from each matrix the elements 2 (l % 4) and the next of row
// l / 4.
__device__ inline void LoadMatrices(int offset, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(SharedAddress(offset))
               : "memory");
}
// LoadMatrices of the transposed matrices.
__device__ inline void LoadMatricesTransposed(int offset, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(SharedAddress(offset))
               : "memory");
}

// c += a b with a [16, 16], b [16, 8], c [16, 8] (mma.m16n8k16, PTX ISA "Matrix Fragments"). With
// g = lane / 4 and t = lane % 4, the fragments are
//   c = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)}
//   a = {(g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..)}
//   b0 = (2t.., g), b1 = (2t + 8.., g)
template <typename T>
__device__ inline void MultiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                          uint32_t b1) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same_v<T, Float16>);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// ---- Arithmetic.

// 2^x within 2 units in the last place. It is 0 for -infinity and NaN for NaN, and results that
// would be subnormal are zero.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float Widen(float value) { return value; }
__device__ inline float Widen(Bfloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
__device__ inline float Widen(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ inline T Narrow(float value) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else if constexpr (std::is_same_v<T, Float16>) {
    return {__half_as_ushort(__float2half_rn(value))};
  } else {
    return value;
  }
}

// Two values of T as one fragment register, `low` in the low half.
template <typename T>
__device__ inline uint32_t NarrowPair(float low, float high) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// ---- Bytes and pairs.

// The bytes that the digits of `selector` name, the lowest first. Digits 0 to 3 name a's bytes, 4
// to 7 b's.
__device__ inline uint32_t PermuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// a - b for the two elements of each fragment register, rounded to T.
template <typename T>
__device__ inline uint32_t SubtractPairs(uint32_t a, uint32_t b) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    const __nv_bfloat162 difference = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                              *reinterpret_cast<const __nv_bfloat162*>(&b));
    return *reinterpret_cast<const uint32_t*>(&difference);
  } else {
    static_assert(std::is_same_v<T, Float16>);
    const __half2 difference =
        __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
    return *reinterpret_cast<const uint32_t*>(&difference);
  }
}

// ---- Launches. A kernel is a struct with
//   using Params = <POD>;                    what it reads, passed by value
//   static constexpr const char* kName;      the op's name, for errors
//   static constexpr int kThreads;           threads of a thread block
//   static constexpr int kMinBlocks;         thread blocks that fit a multiprocessor, which is the
//                                            budget of registers
//   static constexpr int kMaxSharedBytes;    shared memory of a thread block
//   static __device__ void Run(const Params&);
//
// Threads and shared bytes are in the entry's symbol, too, where tests/static and profilers see
// them.
template <typename Kernel, int kThreads = Kernel::kThreads,
          int kMaxSharedBytes = Kernel::kMaxSharedBytes>
__global__ void __launch_bounds__(kThreads, Kernel::kMinBlocks)
    Entry(const __grid_constant__ typename Kernel::Params params) {
  Kernel::Run(params);
}

// Launches on the context's stream and never waits. It throws std::runtime_error when the launch is
// refused, which the engine turns into the request's error. An empty grid launches nothing.
template <typename Kernel>
void Launch(const KernelContext& context, const LaunchShape& shape,
            const typename Kernel::Params& params) {
  if (shape.empty()) return;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      Entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, Kernel::kMaxSharedBytes);
  cudaError_t error = allowed;
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
    config.blockDim = dim3(Kernel::kThreads);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = static_cast<cudaStream_t>(context.stream);
    error = cudaLaunchKernelEx(&config, Entry<Kernel>, params);
  }
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(Kernel::kName) + ": " + cudaGetErrorString(error));
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_DEVICE_HEADER

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

inline constexpr float kLog2E = 1.4426950408889634f;  // exp(x) = 2^(x log2(e))

struct alignas(8) FloatPair {
  float x;
  float y;
};

// The sum over the warp, in every lane and always in the same order. All lanes call it.
__device__ inline float WarpSum(float value) {
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) value += ShuffleXor(value, lanes);
  return value;
}

// Calls body(T()) with the storage type that `dtype` names.
template <typename Body>
void WithStorage(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float());
    case DType::kBfloat16:
      return body(Bfloat16());
    case DType::kFloat16:
      return body(Float16());
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_CUDA_DEVICE_CUH_
