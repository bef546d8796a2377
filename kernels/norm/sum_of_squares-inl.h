// The sum of squares that RMS norms divide by, once per Highway target. Its bits never depend on
// the instruction set.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_NORM_SUM_OF_SQUARES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_NORM_SUM_OF_SQUARES_INL_H_
#undef STRUCTATTN_KERNELS_NORM_SUM_OF_SQUARES_INL_H_
#else
#define STRUCTATTN_KERNELS_NORM_SUM_OF_SQUARES_INL_H_
#endif

#include <cmath>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sum j of 16 takes the elements with index = j mod 16 in order, and then halves are folded.
// Vectors of fewer than 16 lanes walk the row several times, so that the order is the same for all.
// Products and sums are rounded separately because not every instruction set fuses them.
HWY_INLINE float SumOfSquares(const float* x, int64_t count) {
  constexpr int64_t kSums = 16;
  const hn::CappedTag<float, kSums> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t whole = count / kSums * kSums;
  HWY_ALIGN float sums[kSums];
  for (int64_t first = 0; first < kSums; first += lanes) {
    auto sum = hn::Zero(d);
    for (int64_t i = first; i < whole; i += kSums) {
      const auto value = hn::LoadU(d, x + i);
      sum = hn::Add(sum, hn::Mul(value, value));
    }
    hn::Store(sum, d, sums + first);
  }
  for (int64_t i = whole; i < count; ++i) sums[i - whole] += x[i] * x[i];
  for (int64_t half = kSums / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

// 1 / sqrt(mean(x^2) + epsilon).
HWY_INLINE float InverseRms(const float* x, int64_t count, float epsilon) {
  return 1.0f / std::sqrt(SumOfSquares(x, count) / static_cast<float>(count) + epsilon);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#endif  // STRUCTATTN_KERNELS_NORM_SUM_OF_SQUARES_INL_H_
