// The linear kernels of CPUs that multiply bfloat16: pairs (AVX512_BF16) and tiles (AMX). The one
// for AMX is offered only after the CPU, the operating system and a comparison with the other have
// agreed: a virtual machine may offer what its host does not do.

// Both need AVX-512: the other target is the one that Highway always compiles for, and is empty.
#define HWY_DISABLED_TARGETS                                                          \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | \
   HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/linear_bfloat16.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "hwy/highway.h"
#include "kernels/amx.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16")
#include "kernels/linear/bfloat16-inl.h"
#include "kernels/linear/linear-inl.h"

namespace structattn::linear {
namespace HWY_NAMESPACE {

constexpr LinearKernel kPairsKernel = {.name = "avx512_bf16",
                                       .dtype = DType::kBfloat16,
                                       .panel_outputs = kPanelOutputs,
                                       .inputs_per_unit = 2,
                                       .run = RunPacked<Bfloat16Pairs>};
constexpr LinearKernel kAmxKernel = TileKernel<AmxTiles>("amx_bf16");

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear
HWY_POP_ATTRIBUTES
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3

#if HWY_ONCE
namespace structattn::linear {

#if HWY_TARGETS & HWY_AVX3
namespace {

// Tiles and panels with missing outputs and rows, and two slices.
constexpr int64_t kRows = 35;
constexpr int64_t kOutputs = 45;
constexpr int64_t kInputs = 1100;

std::vector<float> SmallProduct(const LinearKernel& kernel) {
  std::vector<Bfloat16> weight(kOutputs * kInputs);
  std::vector<Bfloat16> input(kRows * kInputs);
  uint32_t state = 1;
  const auto next = [&state] {  // Uniform in [-1, 1).
    state = state * 1664525u + 1013904223u;
    return FromFloat<Bfloat16>(static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f);
  };
  for (Bfloat16& x : weight) x = next();
  for (Bfloat16& x : input) x = next();
  ThreadPool pool(1);
  WeightArena arena;
  const MatrixView view = {weight.data(), DType::kBfloat16, kOutputs, kInputs};
  const PackedWeight packed = PackWeight({&view, 1}, {DType::kBfloat16, pool, arena, &kernel});
  std::vector<float> output(kRows * kOutputs);
  const LinearParams params = {
      .input = input.data(), .weight = packed.view, .output = output.data(), .rows = kRows};
  LinearCpu(pool, {&params, 1});
  return output;
}

// Both sum the same exact products of numbers up to 1, in another order: each of the two chains of
// n terms is within 2 n u of the sum of their magnitudes, which is at most n, so 4 n u n apart.
bool Agree(const LinearKernel& a, const LinearKernel& b) {
  const std::vector<float> first = SmallProduct(a);
  const std::vector<float> second = SmallProduct(b);
  for (size_t i = 0; i < first.size(); ++i) {
    if (!(std::abs(first[i] - second[i]) <= 4.0f * kInputs * kInputs * 0x1p-24f)) return false;
  }
  return true;
}

}  // namespace
#endif  // HWY_TARGETS & HWY_AVX3

std::span<const LinearKernel> Bfloat16Kernels() {
  static const std::vector<LinearKernel> kernels = [] {
    std::vector<LinearKernel> supported;
#if HWY_TARGETS & HWY_AVX3
    const bool has_avx3 = (hwy::SupportedTargets() & HWY_AVX3) != 0;
    if (!has_avx3 || !__builtin_cpu_supports("avx512bf16")) return supported;
    supported.push_back(N_AVX3::kPairsKernel);
    if (AmxUsable() && Agree(N_AVX3::kAmxKernel, N_AVX3::kPairsKernel)) {
      supported.insert(supported.begin(), N_AVX3::kAmxKernel);
    }
#endif
    return supported;
  }();
  return kernels;
}

}  // namespace structattn::linear
#endif  // HWY_ONCE
