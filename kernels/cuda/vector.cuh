// Several elements of a row at once: vector loads that widen to float, vector stores that narrow,
// and the spread of rows over threads. Row-wise ops are bound by memory, so what counts is that a
// warp touches whole 32-byte sectors.
#ifndef STRUCTATTN_KERNELS_CUDA_VECTOR_CUH_
#define STRUCTATTN_KERNELS_CUDA_VECTOR_CUH_

#include "kernels/cuda/device.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// Elements of an access. Four floats are 16 bytes, the widest access there is. Four 16-bit elements
// are 8, so that a warp that reads the one and writes the other has no gaps in either.
inline constexpr int kVectorWidth = 4;

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Packed {
  T values[kWidth];
};

// The pointer is aligned to kWidth elements.
template <int kWidth, typename T>
__device__ inline void LoadFloats(const T* from, float (&to)[kWidth]) {
  const auto packed = LoadGlobal(reinterpret_cast<const Packed<T, kWidth>*>(from));
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = Widen(packed.values[i]);
}

template <int kWidth, typename T>
__device__ inline void StoreFloats(T* to, const float (&from)[kWidth]) {
  if constexpr (sizeof(T) == 2 && kWidth % 2 == 0) {
    Packed<uint32_t, kWidth / 2> packed;
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) {
      packed.values[i] = NarrowPair<T>(from[2 * i], from[2 * i + 1]);
    }
    StoreGlobal(reinterpret_cast<Packed<uint32_t, kWidth / 2>*>(to), packed);
  } else {
    Packed<T, kWidth> packed;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) packed.values[i] = Narrow<T>(from[i]);
    StoreGlobal(reinterpret_cast<Packed<T, kWidth>*>(to), packed);
  }
}

// Spreads rows of `columns` elements over thread blocks of kThreads threads with kWidth elements a
// thread. Each row has the same number of thread blocks, and in what is left of the last one
// `column` is at or past the row's end.
struct RowPlace {
  int64_t row;
  int64_t column;
};
template <int kThreads, int kWidth>
__device__ inline RowPlace PlaceInRows(int64_t columns) {
  const unsigned per_row = BlocksFor(columns, kThreads * kWidth);
  const unsigned block = BlockX();
  return {block / per_row, (int64_t{block % per_row} * kThreads + ThreadIndex()) * kWidth};
}

// Tells on the host whether rows of `columns` elements that start at `base` can be accessed
// kVectorWidth elements of `element_bytes` at a time.
inline bool IsVectorAligned(const void* base, int64_t columns, size_t element_bytes) {
  return columns % kVectorWidth == 0 &&
         reinterpret_cast<uintptr_t>(base) % (kVectorWidth * element_bytes) == 0;
}

// Calls body(std::integral_constant<int, W>()) on the host, where W is the vector width if
// `aligned`, else 1.
template <typename Body>
void WithWidth(bool aligned, const Body& body) {
  if (aligned) return body(std::integral_constant<int, kVectorWidth>());
  body(std::integral_constant<int, 1>());
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_CUDA_VECTOR_CUH_
