// The three inner loops of attention on the CPU, once per Highway target: scores, softmax, weighted
// sum of values. Each output element is one fixed chain of multiply-adds, over dims for a score and
// over visible keys in order for a sum. The chain depends neither on the number of rows, nor on the
// place of a key in a vector, nor on the cut into chunks, which makes the bits of a row independent
// of everything around it. Lanes of keys that a row does not see are computed and dropped, never
// multiplied by zero, so what they hold (NaN too) cannot leak.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_INL_H_
#undef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_INL_H_
#else
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, kTileKeys>;
using FloatVec = hn::Vec<FloatTag>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
inline constexpr int kVecsPerTile = kTileKeys / kLanes;

// Registers hold rows x vectors of sums, the vectors of K or V, and one broadcast.
inline constexpr bool kManyRegisters = kLanes == 16 || HWY_ARCH_ARM;
inline constexpr int kMaxRows = 6;
inline constexpr int kMaxTilesAtOnce = kLanes == 16 ? 4 : 1;
inline constexpr int kMaxValueVecs = kManyRegisters ? 4 : 2;

// Floats from one row of queries to the next. It is a constant, so that rows need no pointers of
// their own, and not a multiple of the cache's set size.
inline constexpr int64_t kQueryStride = 256 + 16;

HWY_INLINE FloatVec LoadFloat(FloatTag d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE FloatVec LoadFloat(FloatTag d, const Bfloat16* from) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::Rebind<uint32_t, FloatTag> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

HWY_INLINE FloatVec LoadFloat(FloatTag d, const Float16* from) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(&from->bits)));
}

// The number of dims of one key that lie side by side in the cache.
template <typename T>
inline constexpr int kKeyDims = 1;
template <>
inline constexpr int kKeyDims<Bfloat16> = 2;

// Loads dim `pair_dim`, which is below kKeyDims, of kLanes keys.
template <typename T>
HWY_INLINE FloatVec LoadKeys(FloatTag d, const T* from, int /*pair_dim*/) {
  return LoadFloat(d, from);
}

HWY_INLINE FloatVec LoadKeys(FloatTag d, const Bfloat16* from, int pair_dim) {
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto pairs = hn::LoadU(d32, reinterpret_cast<const uint32_t*>(from));
  return hn::BitCast(
      d, pair_dim == 0 ? hn::ShiftLeft<16>(pairs) : hn::And(pairs, hn::Set(d32, 0xffff0000u)));
}

// One KV head of a layer. The pointers are moved to the head within block 0.
template <typename T>
struct HeadView {
  const T* key;
  const T* value;
  int64_t block_stride;  // Elements from one block to the next.
  int32_t block_size;
  int32_t head_dim;

  const T* Keys(const KeyTile& key_tile) const {
    return key + key_tile.block * block_stride + key_tile.offset * kKeyDims<T>;
  }
  const T* Values(const KeyTile& key_tile) const {
    return value + key_tile.block * block_stride + int64_t{key_tile.offset} * head_dim;
  }
};

// Writes the lanes of `scores` that `visible` names (bit 0 = the first lane), packed, at `to`.
// Clobbers up to kLanes floats there: callers write in ascending order and leave room at the end.
HWY_INLINE void StoreVisible(FloatVec scores, uint64_t visible, float* to) {
  const FloatTag d;
  constexpr uint64_t kAll = (uint64_t{1} << kLanes) - 1;
  if ((visible & kAll) != kAll) {
    visible &= kAll;
    const auto mask = hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(&visible));
    scores = hn::Compress(scores, mask);
  }
  hn::StoreU(scores, d, to);
}

// Rows of queries and the consecutive key tiles that they meet.
template <typename T>
struct ScoreArgs {
  HeadView<T> head;
  const float* query;  // [rows][kQueryStride], scaled.
  const KeyTile* key_tiles;
  float* scores;  // [rows][stride], indexed by key rank.
  int64_t stride;
};

template <int kRows, int kTiles, typename T>
HWY_INLINE void ScoreTilesAtOnce(const ScoreArgs<T>& args) {
  const FloatTag d;
  constexpr int kVecs = kTiles * kVecsPerTile;
  const T* keys[kTiles];
  for (int g = 0; g < kTiles; ++g) keys[g] = args.head.Keys(args.key_tiles[g]);
  FloatVec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) sums[r][v] = hn::Zero(d);
  }
  const float* HWY_RESTRICT query = args.query;
  for (int32_t dim = 0; dim < args.head.head_dim; dim += kKeyDims<T>) {
    for (int pair_dim = 0; pair_dim < kKeyDims<T>; ++pair_dim, ++query) {
      FloatVec key[kVecs];
      for (int v = 0; v < kVecs; ++v) {
        const T* from = keys[v / kVecsPerTile] + v % kVecsPerTile * kLanes * kKeyDims<T>;
        key[v] = LoadKeys(d, from, pair_dim);
      }
      for (int r = 0; r < kRows; ++r) {
        const FloatVec q = hn::Set(d, query[r * kQueryStride]);
        for (int v = 0; v < kVecs; ++v) sums[r][v] = hn::MulAdd(q, key[v], sums[r][v]);
      }
    }
    for (int g = 0; g < kTiles; ++g) keys[g] += args.head.block_size * kKeyDims<T>;
  }
  for (int r = 0; r < kRows; ++r) {
    float* row = args.scores + r * args.stride;
    for (int v = 0; v < kVecs; ++v) {
      const KeyTile& key_tile = args.key_tiles[v / kVecsPerTile];
      const int lane = v % kVecsPerTile * kLanes;
      const uint32_t before = key_tile.visible & ((1u << lane) - 1);
      StoreVisible(sums[r][v], key_tile.visible >> lane,
                   row + key_tile.rank + std::popcount(before));
    }
  }
}

// Computes the scores of `key_tile_count` key tiles, packed by key rank.
template <int kRows, typename T>
HWY_NOINLINE void ScoreTiles(ScoreArgs<T> args, int key_tile_count) {
  for (; key_tile_count >= kMaxTilesAtOnce; key_tile_count -= kMaxTilesAtOnce) {
    ScoreTilesAtOnce<kRows, kMaxTilesAtOnce>(args);
    args.key_tiles += kMaxTilesAtOnce;
  }
  for (; key_tile_count > 0; --key_tile_count) {
    ScoreTilesAtOnce<kRows, 1>(args);
    ++args.key_tiles;
  }
}

HWY_INLINE FloatVec Maximum(const float* scores, int32_t count) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec maximum = lowest;
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) maximum = hn::Max(maximum, hn::LoadU(d, scores + i));
  const auto rest = hn::FirstN(d, count - i);
  return hn::MaxOfLanes(d,
                        hn::Max(maximum, hn::IfThenElse(rest, hn::LoadU(d, scores + i), lowest)));
}

// e^x where NaN stays NaN; Highway's Exp makes it zero.
HWY_INLINE FloatVec ExpOrNan(FloatVec x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(FloatTag(), x));
}

// Replaces scores [0, count) by exp(score - max) and returns their sum, added up in lanes by key
// rank modulo kLanes. Clobbers up to kLanes floats behind them. `count` is at least 1.
HWY_INLINE float SoftmaxNumerators(float* scores, int32_t count) {
  const FloatTag d;
  const FloatVec maximum = Maximum(scores, count);
  FloatVec sums = hn::Zero(d);
  for (int32_t i = 0; i < count; i += kLanes) {
    const auto valid = hn::FirstN(d, std::min(kLanes, count - i));
    const FloatVec weights =
        hn::IfThenElseZero(valid, ExpOrNan(hn::Sub(hn::LoadU(d, scores + i), maximum)));
    hn::StoreU(weights, d, scores + i);
    sums = hn::Add(sums, weights);
  }
  return hn::GetLane(hn::SumOfLanes(d, sums));
}

// Rows of weights and the values of key ranks [begin, end) that they meet, from dim_begin on.
template <typename T>
struct ValueArgs {
  HeadView<T> head;
  const KeyTile* key_tile;  // Holds key rank `begin`.
  int32_t begin;
  int32_t end;
  int32_t dim_begin;
  const float* weights;  // [rows][stride], indexed by key rank.
  int64_t stride;
  float* sums;  // [rows][head_dim], added to.
};

template <int kRows, int kVecs, typename T>
HWY_NOINLINE void AddValues(const ValueArgs<T>& args) {
  const FloatTag d;
  const int64_t head_dim = args.head.head_dim;
  FloatVec sums[kRows][kVecs];
  const float* weights[kRows];
  for (int r = 0; r < kRows; ++r) {
    weights[r] = args.weights + r * args.stride;
    for (int v = 0; v < kVecs; ++v) {
      sums[r][v] = hn::LoadU(d, args.sums + r * head_dim + args.dim_begin + v * kLanes);
    }
  }
  const KeyTile* key_tile = args.key_tile;
  for (int32_t rank = args.begin; rank < args.end; ++key_tile) {
    uint32_t visible = key_tile->visible;
    for (int32_t skipped = key_tile->rank; skipped < rank; ++skipped) visible &= visible - 1;
    const T* values = args.head.Values(*key_tile) + args.dim_begin;
    for (; visible != 0 && rank < args.end; ++rank, visible &= visible - 1) {
      const T* value = values + std::countr_zero(visible) * head_dim;
      FloatVec loaded[kVecs];
      for (int v = 0; v < kVecs; ++v) loaded[v] = LoadFloat(d, value + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const FloatVec weight = hn::Set(d, weights[r][rank]);
        for (int v = 0; v < kVecs; ++v) sums[r][v] = hn::MulAdd(weight, loaded[v], sums[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) {
      hn::StoreU(sums[r][v], d, args.sums + r * head_dim + args.dim_begin + v * kLanes);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_CPU_INL_H_
