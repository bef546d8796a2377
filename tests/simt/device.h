// The host's version of kernels/cuda/device.cuh, with the same contracts: compile a kernel's source
// with `-x c++ -DSTRUCTATTN_DEVICE_HEADER='"tests/simt/device.h"'` and every call below is carried
// out, checked and counted by Machine. Each takes its caller's place, for the reports. It is meant
// for the sources of kernels alone; what tests call is in simt.h.
#ifndef STRUCTATTN_TESTS_SIMT_DEVICE_H_
#define STRUCTATTN_TESTS_SIMT_DEVICE_H_

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <source_location>
#include <type_traits>

#include "kernels/context.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/dtype.h"
#include "tests/simt/machine.h"

#define STRUCTATTN_CUDA_NAMESPACE emulated
#define __device__
#define __host__
#define __forceinline__ inline

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

inline constexpr int kWarpSize = simt::kLanes;
using Place = std::source_location;

// ---- What nvcc declares everywhere.
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> min(A a, B b) { return a < b ? a : b; }
template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> max(A a, B b) { return a > b ? a : b; }

// ---- Indices.
inline int ThreadIndex() { return simt::Machine::Get().thread(); }
inline int LaneIndex() { return ThreadIndex() % kWarpSize; }
inline int WarpIndex() { return ThreadIndex() / kWarpSize; }
inline int BlockX() { return simt::Machine::Get().block(0); }
inline int BlockY() { return simt::Machine::Get().block(1); }
inline int BlockZ() { return simt::Machine::Get().block(2); }

// ---- Global memory.
template <typename V>
V LoadGlobal(const V* from, Place place = Place::current()) {
  return simt::Machine::Get().LoadGlobal(from, place);
}
template <typename V>
void StoreGlobal(V* to, std::type_identity_t<V> value, Place place = Place::current()) {
  simt::Machine::Get().StoreGlobal(to, value, place);
}

// ---- Shared memory, addressed by byte offset.
template <typename V>
V LoadShared(int offset, Place place = Place::current()) {
  return simt::Machine::Get().LoadShared<V>(offset, place);
}
template <typename V>
void StoreShared(int offset, V value, Place place = Place::current()) {
  simt::Machine::Get().StoreShared(offset, value, place);
}

// ---- Asynchronous copies.
inline void CopyAsync16(int offset, const void* from, bool valid, Place place = Place::current()) {
  simt::Machine::Get().CopyAsync16(offset, from, valid, place);
}
inline void CommitCopies() { simt::Machine::Get().CommitCopies(); }
template <int kCommits>
void WaitCopies() {
  simt::Machine::Get().WaitCopies(kCommits);
}

inline void BlockBarrier(Place place = Place::current()) { simt::Machine::Get().Barrier(place); }

// ---- Warp shuffles.
template <typename V>
V ShuffleXor(V value, int lanes, Place place = Place::current()) {
  return simt::Machine::Get().ShuffleXor(value, lanes, place);
}

// ---- Tensor cores.
inline void LoadMatrices(int offset, uint32_t (&m)[4], Place place = Place::current()) {
  simt::Machine::Get().LoadMatrices(offset, false, place, m);
}
inline void LoadMatricesTransposed(int offset, uint32_t (&m)[4], Place place = Place::current()) {
  simt::Machine::Get().LoadMatrices(offset, true, place, m);
}
template <typename T>
void MultiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                        Place place = Place::current()) {
  simt::Machine::Get().Multiply<T>({.c = c, .a = a, .b0 = b0, .b1 = b1}, place);
}

// ---- Arithmetic.
inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;  // NaN stays NaN.
}
inline float Widen(float value) { return value; }
inline float Widen(Bfloat16 value) { return ToFloat(value); }
inline float Widen(Float16 value) { return ToFloat(value); }
template <typename T>
T Narrow(float value) {
  return FromFloat<T>(value);
}
template <typename T>
uint32_t NarrowPair(float low, float high) {
  return Narrow<T>(low).bits | static_cast<uint32_t>(Narrow<T>(high).bits) << 16;
}

// ---- Bytes and pairs.
inline uint32_t PermuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = selector >> 4 * i & 7;
    result |= static_cast<uint32_t>(bytes >> 8 * byte & 0xff) << 8 * i;
  }
  return result;
}
template <typename T>
uint32_t SubtractPairs(uint32_t a, uint32_t b) {
  const auto element = [](uint32_t pair, int i) {
    return ToFloat(T{static_cast<uint16_t>(pair >> 16 * i)});
  };
  return NarrowPair<T>(element(a, 0) - element(b, 0), element(a, 1) - element(b, 1));
}

// ---- Launches.
template <typename Kernel>
void Launch(const KernelContext&, const LaunchShape& shape, const typename Kernel::Params& params) {
  using Params = typename Kernel::Params;
  static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= 4096);
  static_assert(Kernel::kThreads % kWarpSize == 0 && Kernel::kThreads <= simt::kMaxThreads);
  static_assert(Kernel::kMinBlocks > 0 && Kernel::kMaxSharedBytes <= simt::kMaxSharedBytes);
  if (shape.empty()) return;
  const Params copy = params;
  simt::Machine::Get().Run(
      {.kernel = Kernel::kName,
       .threads = Kernel::kThreads,
       .max_shared_bytes = Kernel::kMaxSharedBytes,
       .shape = shape,
       .run = [](const void* p) { Kernel::Run(*static_cast<const Params*>(p)); },
       .params = &copy});
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_TESTS_SIMT_DEVICE_H_
