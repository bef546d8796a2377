// PickTokens on CUDA, in two launches. A thread block for each part of a row computes its share of
// the softmax, then a thread block for each row puts the parts together and picks. Nothing is
// copied to the host.
#include "kernels/cuda/ops.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/sampling/pick_tokens.h"
#include "kernels/sampling/token_draw.cuh"
#include "kernels/sampling/token_order.cuh"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {
namespace {

// exp(value - largest), or 0 where both are -infinity. NaN and +infinity become NaN.
__device__ float ExpFrom(float value, float largest) {
  return expf(value - (largest == -INFINITY ? 0.0f : largest));
}

template <int kWidth>
struct LogitsPartKernel {
  using Params = PickTokensParams;
  static constexpr const char* kName = "pick_tokens (parts)";
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocks = 6;
  static constexpr int kHeld = static_cast<int>(kLogitsPerPart) / (kThreads * kWidth);
  using Best = BlockReduction<uint64_t, kThreads>;
  using Sums = BlockReduction<float, kThreads>;
  static constexpr int kMaxSharedBytes = Best::kSharedBytes + Sums::kSharedBytes;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows * LogitsParts(p.vocabulary)),
            .shared_bytes = kMaxSharedBytes};
  }

  static __device__ void Run(const Params& p) {
    const unsigned parts = static_cast<unsigned>(LogitsParts(p.vocabulary));
    const unsigned block = BlockX();
    const int64_t begin = int64_t{block % parts} * kLogitsPerPart;
    const float* logits = p.logits + block / parts * p.vocabulary;

    float held[kHeld][kWidth];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int64_t at = begin + (i * kThreads + ThreadIndex()) * kWidth;
      if (at < p.vocabulary) {
        LoadFloats(logits + at, held[i]);
      } else {
#pragma unroll
        for (int n = 0; n < kWidth; ++n) held[i][n] = -INFINITY;
      }
    }
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const auto at = static_cast<int32_t>(begin) + (i * kThreads + ThreadIndex()) * kWidth;
#pragma unroll
      for (int n = 0; n < kWidth; ++n) {
        const uint64_t place = PlaceOf(Ascending(held[i][n]), at + n);
        best = place > best ? place : best;
      }
    }
    best = Best(0).Max(best);
    const float largest = FromAscending(static_cast<uint32_t>(best >> 32));
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
#pragma unroll
      for (int n = 0; n < kWidth; ++n) sum += ExpFrom(held[i][n], largest);
    }
    sum = Sums(Best::kSharedBytes).Sum(sum);
    if (ThreadIndex() != 0) return;
    StoreGlobal(&p.parts[block].largest, largest);
    StoreGlobal(&p.parts[block].sum, sum);
    StoreGlobal(&p.parts[block].id, IdOf(best));
  }
};

template <int kWidth>
struct PickTokensKernel {
  using Params = PickTokensParams;
  static constexpr const char* kName = "pick_tokens";
  static constexpr int kThreads = 512;
  static constexpr int kMinBlocks = 1;
  using Draw = TokenDraw<kThreads, kWidth>;
  using Best = BlockReduction<uint64_t, kThreads>;
  using Sums = BlockReduction<float, kThreads>;
  static constexpr int kSumsOffset = Best::kSharedBytes;
  static constexpr int kDrawOffset = kSumsOffset + Sums::kSharedBytes;
  static constexpr int kMaxSharedBytes = kDrawOffset + Draw::kSharedBytes;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows), .shared_bytes = kMaxSharedBytes};
  }

  static __device__ PickRule LoadRule(const Params& p, int64_t row) {
    if (p.rules == nullptr) return {};
    const PickRule* from = p.rules + row;
    return {.given = LoadGlobal(&from->given),
            .temperature = LoadGlobal(&from->temperature),
            .top_k = LoadGlobal(&from->top_k),
            .top_p = LoadGlobal(&from->top_p),
            .min_p = LoadGlobal(&from->min_p),
            .uniform = LoadGlobal(&from->uniform)};
  }

  static __device__ void Run(const Params& p) {
    const int64_t row = BlockX();
    const int64_t count = LogitsParts(p.vocabulary);
    const LogitsPart* parts = p.parts + row * count;
    uint64_t best = 0;
    for (int64_t i = ThreadIndex(); i < count; i += kThreads) {
      const uint64_t place =
          PlaceOf(Ascending(LoadGlobal(&parts[i].largest)), LoadGlobal(&parts[i].id));
      best = place > best ? place : best;
    }
    best = Best(0).Max(best);
    const float largest = FromAscending(static_cast<uint32_t>(best >> 32));
    float sum = 0.0f;
    for (int64_t i = ThreadIndex(); i < count; i += kThreads) {
      sum += LoadGlobal(&parts[i].sum) * ExpFrom(LoadGlobal(&parts[i].largest), largest);
    }
    sum = Sums(kSumsOffset).Sum(sum);

    const float* logits = p.logits + row * p.vocabulary;
    const PickRule rule = LoadRule(p, row);
    int32_t id = rule.given >= 0 ? rule.given : IdOf(best);
    // Nothing can be drawn when the sum is not finite, and the log-probability shows it.
    if (rule.given < 0 && rule.temperature > 0.0f && sum > 0.0f && sum < INFINITY) {
      id = Draw(logits, p.vocabulary, largest, kDrawOffset).Draw(rule);
    }
    if (ThreadIndex() != 0) return;
    StoreGlobal(p.ids + row, id);
    StoreGlobal(p.logprobs + row, LoadGlobal(logits + id) - largest - logf(sum));
  }
};

}  // namespace

void PickTokens(const KernelContext& context, const PickTokensParams& params) {
  const bool aligned = IsVectorAligned(params.logits, params.vocabulary, sizeof(float));
  WithWidth(aligned, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    using Parts = LogitsPartKernel<kWidth>;
    using Pick = PickTokensKernel<kWidth>;
    Launch<Parts>(context, Parts::Shape(params), params);
    Launch<Pick>(context, Pick::Shape(params), params);
  });
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE
