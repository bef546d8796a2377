// Draws one token of a row after temperature, top-k, top-p and min-p, as
// server/engine/sampling/sampler.cc does, with one thread block and without ever sorting.
//
// Everything is one question: which is the last token, in some order, that it takes for a sum to
// reach a target? Top-k asks it with the amount 1 for each token, top-p with the weights, and so
// does the draw itself (the inverse of the cumulative distribution). Select answers it bit by bit,
// with the greatest threshold above which the sum still reaches the target. Weights are integers,
// 2^44 for the best token, so a sum is the same in any order; a weight below 2^-21 is rounded down
// to a multiple of 2^-44.
//
// The few tokens that matter are listed in shared memory first, where they fit. Where they do not,
// as in a flat distribution, each bit is one pass over the row.
#ifndef STRUCTATTN_KERNELS_SAMPLING_TOKEN_DRAW_CUH_
#define STRUCTATTN_KERNELS_SAMPLING_TOKEN_DRAW_CUH_

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/sampling/pick_tokens.h"
#include "kernels/sampling/token_order.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// Each thread of a thread block has one, and all call each function in uniform control flow.
template <int kThreads, int kWidth>
class TokenDraw {
 public:
  static constexpr int kMaxListed = 4096;
  using Reduction = BlockReduction<uint64_t, kThreads>;
  static constexpr int kSharedBytes =
      Reduction::kSharedBytes + kMaxListed * 8 + kThreads * 4 + kThreads / kWarpSize * 4;

  // `largest` is the largest of the row's logits. The draw uses kSharedBytes of shared memory from
  // `offset`.
  __device__ TokenDraw(const float* logits, int64_t vocabulary, float largest, int offset)
      : logits_(logits),
        vocabulary_(vocabulary),
        largest_(largest),
        list_(offset + Reduction::kSharedBytes),
        reduction_(offset) {}

  __device__ int32_t Draw(const PickRule& rule) {
    temperature_ = rule.temperature;
    const bool top_k = rule.top_k > 0 && rule.top_k < vocabulary_;
    const bool top_p = rule.top_p < 1.0f;
    const Bands bands = CountBands();
    ListTokens(bands, rule, top_k);

    Order order = Order::kId;
    if (top_k) {
      order = Order::kLogit;
      least_logit_place_ = Select(order, /*counted=*/true, rule.top_k);
    }
    if (top_p) {
      const uint64_t total = top_k ? Total() : bands.sums[kBands - 1];
      order = Order::kWeight;
      least_weight_place_ = Select(order, /*counted=*/false, ShareOf(total, rule.top_p));
    }
    least_weight_ = rule.min_p;
    const uint64_t total = Total();
    const auto below = static_cast<uint64_t>(rule.uniform * static_cast<double>(total));
    return IdOf(Select(order, /*counted=*/false, below < total ? below + 1 : total));
  }

 private:
  enum class Order { kId, kLogit, kWeight };

  // Band 0 has the tokens of a weight of at least 2^-7, and 1 to 3 those of at least 2^-14, of at
  // least 2^-21, and above 0.
  static constexpr int kBands = 4;
  struct Bands {
    int own_counts[kBands];  // They count the tokens that this thread visits.
    uint64_t counts[kBands];
    uint64_t sums[kBands];
  };
  static __device__ float LeastOfBand(int band) {
    return band == 0 ? 0x1p-7f : band == 1 ? 0x1p-14f : band == 2 ? 0x1p-21f : 0x1p-126f;
  }

  // exp((logit - largest) / temperature), or 0 where that is below e^-87.
  __device__ float Weight(float logit) const {
    const float exponent = (logit - largest_) / temperature_;
    return exponent < -87.0f ? 0.0f : expf(exponent);
  }
  static __device__ uint64_t Integer(float weight) {
    return static_cast<uint64_t>(weight * 0x1p44f);
  }
  // The least integer that is at least `share` of `total` and at least 1.
  static __device__ uint64_t ShareOf(uint64_t total, float share) {
    const double exact = static_cast<double>(share) * static_cast<double>(total);
    const auto whole = static_cast<uint64_t>(exact);
    return whole == 0 || static_cast<double>(whole) < exact ? whole + 1 : whole;
  }

  // Calls visit(logit, id) for the tokens of the row that fall to this thread, which are always the
  // same ones.
  template <typename Visit>
  __device__ void ForEachOfRow(const Visit& visit) const {
    for (int64_t i = int64_t{ThreadIndex()} * kWidth; i < vocabulary_; i += kThreads * kWidth) {
      float values[kWidth];
      LoadFloats(logits_ + i, values);
#pragma unroll
      for (int n = 0; n < kWidth; ++n) visit(values[n], static_cast<int32_t>(i) + n);
    }
  }
  template <typename Visit>
  __device__ void ForEach(const Visit& visit) const {
    if (listed_ < 0) return ForEachOfRow(visit);
    for (int i = ThreadIndex(); i < listed_; i += kThreads) {
      const auto token = LoadShared<uint64_t>(list_ + i * 8);
      visit(std::bit_cast<float>(static_cast<uint32_t>(token >> 32)), static_cast<int32_t>(token));
    }
  }

  __device__ Bands CountBands() {
    Bands bands = {};
    ForEachOfRow([&](float logit, int32_t) {
      const float weight = Weight(logit);
      const uint64_t integer = Integer(weight);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        if (weight < LeastOfBand(band)) continue;
        ++bands.own_counts[band];
        bands.sums[band] += integer;
      }
    });
#pragma unroll
    for (int band = 0; band < kBands; ++band) {
      bands.counts[band] = reduction_.Sum(static_cast<uint64_t>(bands.own_counts[band]));
      bands.sums[band] = reduction_.Sum(bands.sums[band]);
    }
    return bands;
  }

  // Lists the tokens of the first band that has all tokens which the rule can keep, if they fit.
  __device__ void ListTokens(const Bands& bands, const PickRule& rule, bool top_k) {
    int own_count = bands.own_counts[kBands - 1];
    uint64_t count = bands.counts[kBands - 1];
    float least = LeastOfBand(kBands - 1);
#pragma unroll
    for (int band = kBands - 2; band >= 0; --band) {
      const bool enough =
          top_k ? bands.counts[band] >= static_cast<uint64_t>(rule.top_k)
                : LeastOfBand(band) <= rule.min_p ||
                      (rule.top_p < 1.0f &&
                       bands.sums[band] >= ShareOf(bands.sums[kBands - 1], rule.top_p));
      if (!enough) continue;
      own_count = bands.own_counts[band];
      count = bands.counts[band];
      least = LeastOfBand(band);
    }
    if (count > kMaxListed) return;
    listed_ = static_cast<int>(count);
    int place = list_ + 8 * CountBefore(own_count);
    ForEachOfRow([&](float logit, int32_t id) {
      if (Weight(logit) < least) return;
      StoreShared<uint64_t>(
          place, uint64_t{std::bit_cast<uint32_t>(logit)} << 32 | static_cast<uint32_t>(id));
      place += 8;
    });
    BlockBarrier();
  }

  // The sum of `count` over the threads before this one.
  __device__ int CountBefore(int count) {
    const int counts = list_ + kMaxListed * 8;
    const int warps = counts + kThreads * 4;
    int sum = count;
#pragma unroll
    for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) sum += ShuffleXor(sum, lanes);
    StoreShared(counts + ThreadIndex() * 4, count);
    if (LaneIndex() == 0) StoreShared(warps + WarpIndex() * 4, sum);
    BlockBarrier();
    int before = 0;
    for (int warp = 0; warp < WarpIndex(); ++warp) before += LoadShared<int>(warps + warp * 4);
    for (int i = ThreadIndex() - LaneIndex(); i < ThreadIndex(); ++i) {
      before += LoadShared<int>(counts + i * 4);
    }
    return before;
  }

  __device__ bool IsKept(float logit, float weight, int32_t id) const {
    return weight >= least_weight_ && PlaceOf(Ascending(logit), id) >= least_logit_place_ &&
           PlaceOf(std::bit_cast<uint32_t>(weight), id) >= least_weight_place_;
  }
  static __device__ uint64_t Place(Order order, float logit, float weight, int32_t id) {
    if (order == Order::kLogit) return PlaceOf(Ascending(logit), id);
    return PlaceOf(order == Order::kWeight ? std::bit_cast<uint32_t>(weight) : 0u, id);
  }

  // The sum (or with `counted` the number) of the kept tokens at `least` or before it in the order.
  __device__ uint64_t SumFrom(Order order, bool counted, uint64_t least) {
    uint64_t sum = 0;
    ForEach([&](float logit, int32_t id) {
      const float weight = Weight(logit);
      if (!IsKept(logit, weight, id) || Place(order, logit, weight, id) < least) return;
      sum += counted ? 1 : Integer(weight);
    });
    return reduction_.Sum(sum);
  }
  __device__ uint64_t Total() { return SumFrom(Order::kId, /*counted=*/false, 0); }

  // The place of the last kept token that it takes for the sum to reach `target`, or 0 when all
  // kept tokens do not reach it.
  __device__ uint64_t Select(Order order, bool counted, uint64_t target) {
    uint64_t place = 0;
    for (int bit = order == Order::kId ? 30 : 63; bit >= 0; --bit) {
      if (bit == 31) continue;  // Places have 31 bits for the id.
      const uint64_t least = place | uint64_t{1} << bit;
      if (SumFrom(order, counted, least) >= target) place = least;
    }
    return place;
  }

  const float* logits_;
  const int64_t vocabulary_;
  const float largest_;
  const int list_;  // Shared memory: [kMaxListed] of logit and id, 8 bytes each.
  Reduction reduction_;
  float temperature_ = 1.0f;
  int listed_ = -1;  // -1 stands for the whole row.
  // The filters so far keep tokens at or above these.
  float least_weight_ = 0.0f;
  uint64_t least_logit_place_ = 0;
  uint64_t least_weight_place_ = 0;
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_SAMPLING_TOKEN_DRAW_CUH_
