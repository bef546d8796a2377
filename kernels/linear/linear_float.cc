// The linear kernels in vectors of floats, for every CPU: float32, and 16-bit weights and inputs
// widened to float; and quantized weights, in floats for float32 and float16 inputs, by
// quantized_dot.cc for bfloat16. It offers those of each instruction set that the CPU has.

// AVX-512, AVX2, SSE4 and the portable fallback are enough on x86; the inner loops keep arrays of
// vectors, which scalable vectors forbid.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/linear_float.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <concepts>
#include <cstring>
#include <iterator>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "hwy/highway.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

HWY_BEFORE_NAMESPACE();
#include "kernels/linear/linear-inl.h"
#include "kernels/linear/quantized-inl.h"

namespace structattn::linear {
namespace HWY_NAMESPACE {

void RunQuantizedDot(const LinearItem& item);  // quantized_dot.cc, for the same targets.

namespace {

// Weights stored as P and inputs as I, both widened to float.
template <typename P, typename I>
struct FloatFormat {
  using Packed = P;
  using Input = I;
  using Unit = float;
  static constexpr int kInputsPerUnit = 1;

  static FloatVector LoadWeights(const Packed* from) {
    if constexpr (std::is_same_v<P, float>) {
      return hn::Load(FloatTag(), from);
    } else if constexpr (std::is_same_v<P, Float16>) {
      return LoadHalves(from);
    } else {
      const hn::Rebind<uint16_t, FloatTag> words;
      const auto wide = hn::PromoteTo(hn::RebindToUnsigned<FloatTag>(),
                                      hn::Load(words, reinterpret_cast<const uint16_t*>(from)));
      return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(wide));
    }
  }
  static FloatVector Broadcast(const Unit* from) { return hn::Set(FloatTag(), *from); }
  static FloatVector MultiplyAdd(FloatVector inputs, FloatVector weights, FloatVector sum) {
    return hn::MulAdd(inputs, weights, sum);
  }
  static void Stage(const Input* from, int64_t count, Unit* to) {
    int64_t i = 0;
    if constexpr (std::is_same_v<I, Float16>) {
      for (; i + kLanes <= count; i += kLanes) {
        hn::StoreU(LoadHalves(from + i), FloatTag(), to + i);
      }
    }
    for (; i < count; ++i) to[i] = ToFloat(from[i]);
  }
};

template <typename T>
void Widen(const void* panel, UnitRange units, float* to) {
  const T* const from = static_cast<const T*>(panel) + units.begin * kPanelOutputs;
  for (int64_t i = 0; i < units.count() * kPanelOutputs; i += kLanes) {
    hn::Store(FloatFormat<T, T>::LoadWeights(from + i), FloatTag(), to + i);
  }
}

// One or two row tiles widen a weight once or twice in any case; for more, a piece of a panel is
// widened once for all of them. The sums meet the same floats.
template <typename T>
void RunFloats(const LinearItem& item) {
  if constexpr (!std::is_same_v<T, float>) {
    static constexpr Expander kWiden = {Widen<T>, kPanelOutputs * sizeof(T), nullptr};
    if (item.row_end - item.row_begin > 2 * kMaxRows) {
      return RunItem<FloatFormat<float, T>>(item, &kWiden);
    }
  }
  RunPacked<FloatFormat<T, T>>(item);
}

template <typename T>
void RunQuantized(const LinearItem& item) {
  RunItem<FloatFormat<float, T>>(item, QuantizedExpander(item.format));
}

constexpr std::string_view kName = HWY_TARGET == HWY_AVX3   ? "avx512"
                                   : HWY_TARGET == HWY_AVX2 ? "avx2"
                                   : HWY_TARGET == HWY_SSE4 ? "sse4"
                                                            : "portable";

template <typename T>
LinearKernel KernelOf(DType dtype) {
  LinearKernel kernel = {
      .name = kName, .dtype = dtype, .panel_outputs = kPanelOutputs, .run = RunFloats<T>};
  if constexpr (!std::is_same_v<T, Bfloat16>) {
    kernel.run_quantized = RunQuantized<T>;
  } else if (HWY_TARGET != HWY_AVX3 || __builtin_cpu_supports("avx512vnni")) {
    kernel.run_quantized = RunQuantizedDot;
  }
  return kernel;
}

}  // namespace

void AddFloatKernels(std::vector<LinearKernel>& kernels) {
  kernels.push_back(KernelOf<float>(DType::kFloat32));
  kernels.push_back(KernelOf<Bfloat16>(DType::kBfloat16));
  kernels.push_back(KernelOf<Float16>(DType::kFloat16));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn::linear {

std::span<const LinearKernel> FloatKernels() {
  static const std::vector<LinearKernel> kernels = [] {
    std::vector<LinearKernel> supported;
#if HWY_TARGETS & HWY_AVX3
    if ((hwy::SupportedTargets() & HWY_AVX3) != 0) N_AVX3::AddFloatKernels(supported);
#endif
#if HWY_TARGETS & HWY_AVX2
    if ((hwy::SupportedTargets() & HWY_AVX2) != 0) N_AVX2::AddFloatKernels(supported);
#endif
#if HWY_TARGETS & HWY_SSE4
    if ((hwy::SupportedTargets() & HWY_SSE4) != 0) N_SSE4::AddFloatKernels(supported);
#endif
    HWY_STATIC_DISPATCH(AddFloatKernels)(supported);
    return supported;
  }();
  return kernels;
}

}  // namespace structattn::linear
#endif  // HWY_ONCE
