// The linear kernel of CPUs with AMX: products of tiles of bfloat16. Reached through
// kLinearKernelSets; offered only after the CPU, the operating system and a comparison with the
// kernel for AVX512_BF16 have agreed: a virtual machine may offer what its host does not do.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "hwy/base.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/amx.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

#include "kernels/linear/quantized_chunks-inl.h"
// After quantized_chunks-inl.h.
#include "kernels/linear/quantized_expand-inl.h"
// After quantized_expand-inl.h.
#include "kernels/linear/linear-inl.h"
// After linear-inl.h.
#include "kernels/linear/linear_bf16_pairs-inl.h"
// After linear_bf16_pairs-inl.h.
#include "kernels/linear/linear_amx-inl.h"

HWY_POP_ATTRIBUTES

namespace structattn {
namespace {

// Tiles and panels with missing parts, and two blocks of steps.
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
  const PackedWeight packed =
      PackedWeight::PackFor(kernel, {&view, 1}, {DType::kBfloat16, pool, arena});
  std::vector<float> output(kRows * kOutputs);
  LinearCpu(pool,
            {.input = input.data(), .weight = &packed, .output = output.data(), .rows = kRows});
  return output;
}

// Both sum the same exact products of numbers up to 1, in another order: two chains of n terms are
// within 2 n u of the sum of their magnitudes, which is at most n.
bool Agree(const LinearKernel& a, const LinearKernel& b) {
  const std::vector<float> first = SmallProduct(a);
  const std::vector<float> second = SmallProduct(b);
  for (size_t i = 0; i < first.size(); ++i) {
    if (!(std::abs(first[i] - second[i]) <= 4.0f * kInputs * kInputs * 0x1p-24f)) return false;
  }
  return true;
}

}  // namespace

std::span<const LinearKernel> AmxLinearKernels() {
  static constexpr LinearKernel kKernels[] = {TileKernel<AmxTiles>("amx_bf16")};
  static const bool usable = [] {
    const std::span<const LinearKernel> proven = Avx512Bf16LinearKernels();
    return !proven.empty() && AmxUsable() && Agree(kKernels[0], proven[0]);
  }();
  return usable ? std::span<const LinearKernel>(kKernels) : std::span<const LinearKernel>();
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
std::span<const LinearKernel> AmxLinearKernels() { return {}; }
}  // namespace structattn

#endif
