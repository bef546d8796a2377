// What every CUDA op shares: storage types, warp sums, launch checks. Included by *_cuda.cu only.
#ifndef STRUCTATTN_KERNELS_CUDA_LAUNCH_CUH_
#define STRUCTATTN_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/dtype.h"

namespace structattn {

inline constexpr int kWarpSize = 32;

__device__ inline float Widen(float value) { return value; }
__device__ inline float Widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float Widen(__half value) { return __half2float(value); }

// Round to nearest, ties to even.
template <typename T>
__device__ T Narrow(float value);
template <>
__device__ inline float Narrow<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 Narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline __half Narrow<__half>(float value) {
  return __float2half_rn(value);
}

// Sum over the warp, in every lane; the same order each time. All lanes take part.
__device__ inline float WarpSum(float value) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// Calls body(T()) with the storage type that `dtype` names.
template <typename Body>
void WithStorage(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float());
    case DType::kBfloat16:
      return body(__nv_bfloat16());
    case DType::kFloat16:
      return body(__half());
  }
}

// Throws when the launch just made was refused; the engine turns that into the request's error.
inline void CheckLaunch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(op) + ": " + cudaGetErrorString(error));
  }
}

// Blocks of `threads` that cover `items`.
inline unsigned BlocksFor(int64_t items, int threads) {
  return static_cast<unsigned>((items + threads - 1) / threads);
}

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_LAUNCH_CUH_
