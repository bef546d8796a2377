// Orders of the tokens of a row as numbers that are larger for earlier tokens, so that "the best
// few" is everything at or above a threshold. Reads no memory.
#ifndef STRUCTATTN_KERNELS_SAMPLING_TOKEN_ORDER_CUH_
#define STRUCTATTN_KERNELS_SAMPLING_TOKEN_ORDER_CUH_

#include <bit>

#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// A number that is greater for the greater float, and the same for the two zeros.
__device__ inline uint32_t Ascending(float value) {
  const uint32_t bits = value == 0.0f ? 0u : std::bit_cast<uint32_t>(value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The value that Ascending turned into that number.
__device__ inline float FromAscending(uint32_t ascending) {
  return std::bit_cast<float>(ascending >> 31 ? ascending & 0x7fffffffu : ~ascending);
}

// A number that is greater for the greater `high`, then for the smaller id. No two tokens have the
// same one.
__device__ inline uint64_t PlaceOf(uint32_t high, int32_t id) {
  return uint64_t{high} << 32 | (0x7fffffffu - static_cast<uint32_t>(id));
}
__device__ inline int32_t IdOf(uint64_t place) {
  return static_cast<int32_t>(0x7fffffffu - static_cast<uint32_t>(place));
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_SAMPLING_TOKEN_ORDER_CUH_
