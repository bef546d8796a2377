// Independent chains of multiply-adds that stay in registers; the best of several short runs.
#include "tests/bench/fma_peak.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/fma_peak.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <chrono>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Floating point operations done; `sink` keeps them alive.
double MultiplyAdds(int rounds, float* sink) {
  const hn::CappedTag<float, 16> d;
  constexpr int kChains = 12;
  hn::Vec<decltype(d)> chains[kChains];
  for (int c = 0; c < kChains; ++c) chains[c] = hn::Set(d, static_cast<float>(c));
  const auto factor = hn::Set(d, *sink);
  for (int n = 0; n < rounds; ++n) {
    for (int c = 0; c < kChains; ++c) chains[c] = hn::MulAdd(chains[c], factor, factor);
  }
  auto sum = hn::Zero(d);
  for (int c = 0; c < kChains; ++c) sum = hn::Add(sum, chains[c]);
  *sink = 0.5f + 1e-30f * hn::GetLane(sum);
  return 2.0 * rounds * kChains * static_cast<double>(hn::Lanes(d));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(MultiplyAdds);

double FmaPeakGflops() {
  float sink = 0.5f;
  double best = 0.0;
  for (int n = 0; n < 200; ++n) {
    const auto start = std::chrono::steady_clock::now();
    const double flops = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(100000, &sink);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops / elapsed.count() * 1e-9);
  }
  return best;
}

}  // namespace structattn
#endif  // HWY_ONCE
