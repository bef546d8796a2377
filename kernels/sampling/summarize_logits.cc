// SummarizeLogits makes a pass for the maximum, one for the sum of exponentials and one for the
// first index of the maximum. It stands on Highway, since a vocabulary is long and a decoding step
// short.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sampling/summarize_logits.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/highway.h"
#include "kernels/sampling/summarize_logits.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sum j of 16 takes the elements with index = j mod 16, for vectors of any length.
constexpr int64_t kSums = 16;
using Tag = hn::CappedTag<float, kSums>;
// Elements whose exponentials are added up in float before the sum goes on in double.
constexpr int64_t kChunk = 8 * kSums;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// e^x for x <= 0 with a relative error below 2e-7. It is 0 below -87, where e^x < 1.7e-38, and NaN
// stays NaN. x = n ln 2 + r, where the magic number 1.5 x 2^23 rounds n; e^r is its Taylor
// polynomial of degree 7 (|r| <= 0.35, remainder 5e-9), and 2^n is made of the exponent bits.
template <class V>
HWY_INLINE V ExpNegative(Tag d, V x) {
  const hn::RebindToUnsigned<Tag> bits;
  const auto lowest = hn::Set(d, -87.0f);
  const auto clamped = hn::IfThenElse(hn::Lt(x, lowest), lowest, x);
  const auto magic = hn::Set(d, 12582912.0f);
  const auto shifted = hn::MulAdd(clamped, hn::Set(d, 1.44269504f), magic);
  const auto n = hn::Sub(shifted, magic);
  const auto high = hn::NegMulAdd(n, hn::Set(d, 0.693145752f), clamped);
  const auto r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6f), high);
  auto p = hn::Set(d, 1.0f / 5040.0f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 720.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 120.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 24.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 6.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::Add(hn::BitCast(bits, shifted), hn::Set(bits, 127u));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(exponent));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::Mul(p, power));
}

// The largest element. It may pass over a NaN, which the sum finds.
HWY_INLINE float Largest(const float* x, int64_t count) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto first = hn::Set(d, kLowest);
  auto second = first;
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    first = hn::Max(hn::LoadU(d, x + i), first);
    second = hn::Max(hn::LoadU(d, x + i + lanes), second);
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(first, second)));
  for (; i < count; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// Adds e^(x - largest) of kChunk elements to the 16 sums.
HWY_INLINE void AddChunk(const float* x, float largest, double* sums) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto shift = hn::Set(d, largest);
  HWY_ALIGN float chunk[kSums];
  for (int64_t first = 0; first < kSums; first += lanes) {
    auto sum = hn::Zero(d);
    for (int64_t i = first; i < kChunk; i += kSums) {
      sum = hn::Add(sum, ExpNegative(d, hn::Sub(hn::LoadU(d, x + i), shift)));
    }
    hn::Store(sum, d, chunk + first);
  }
  for (int64_t j = 0; j < kSums; ++j) sums[j] += chunk[j];
}

HWY_INLINE double LogSumExp(const float* x, int64_t count, float largest) {
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kChunk <= count; i += kChunk) AddChunk(x + i, largest, sums);
  if (i < count) {
    float rest[kChunk];
    std::fill(std::copy(x + i, x + count, rest), rest + kChunk, kLowest);
    // Absent elements add nothing, unless the largest is -infinity itself, which ends in NaN.
    AddChunk(rest, largest, sums);
  }
  double sum = 0.0;
  for (const double lane : sums) sum += lane;
  return largest + std::log(sum);
}

HWY_INLINE int64_t FirstOf(const float* x, int64_t count, float value) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto wanted = hn::Set(d, value);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const intptr_t found = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, x + i), wanted));
    if (found >= 0) return i + found;
  }
  while (i < count && x[i] != value) ++i;
  return i < count ? i : 0;
}

LogitsSummary Summarize(const float* x, int64_t count) {
  const float largest = Largest(x, count);
  return {.log_sum_exp = LogSumExp(x, count, largest),
          .best_id = static_cast<int32_t>(FirstOf(x, count, largest))};
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(Summarize);

LogitsSummary SummarizeLogits(std::span<const float> logits) {
  return HWY_DYNAMIC_DISPATCH(Summarize)(logits.data(), static_cast<int64_t>(logits.size()));
}

}  // namespace structattn
#endif  // HWY_ONCE
