// Attention on CPUs with AVX512_BF16: products of pairs of bfloat16 by broadcast and multiply-add.
// Avx512Bf16AttentionKernel() never offers it before it has asked the CPU.
#include "kernels/attention/attention_kernel.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "hwy/base.h"
#include "kernels/attention/attention_bf16-inl.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/dtype.h"

HWY_PUSH_ATTRIBUTES(STRUCTATTN_BF16_ATTRIBUTES)

namespace structattn {
namespace {

// sums[row][v] += the pairs of a row, broadcast, times `depth` vectors of pairs from each column.
// Asks L2 for as many columns of `ahead`.
template <int kRows, int kVecs, bool kPrefetch>
HWY_INLINE void Multiply(const Pair* rows, const Pair* const (&columns)[kVecs],
                         const Pair* const (&ahead)[kVecs], int64_t column_stride, int64_t depth,
                         __m512 (&sums)[kRows][kVecs]) {
  for (int64_t d = 0; d < depth; ++d) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      if (kPrefetch) _mm_prefetch(ahead[v] + d * column_stride, _MM_HINT_T1);
    }
    __m512bh loaded[kVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      loaded[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns[v] + d * column_stride));
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto pair =
          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(rows[r * kRowPairs + d])));
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], loaded[v], pair);
    }
  }
}

// Registers hold 24 sums. Many rows meet two columns at once, few rows more, which hides latency.
constexpr int kMaxRows = 12;
constexpr int kFewRows = 8;  // A generated token has no more, and its keys come from memory.
constexpr int kTilesAhead = kChunkKeys / kTileKeys;
constexpr int Columns(int rows) { return rows > 6 ? 2 : rows > 3 ? 4 : 8; }

template <int kRows, int kVecs, bool kPrefetch>
HWY_INLINE void ScoreColumns(const ScoreArgs& args, int first) {
  const KeyTile* key_tiles = args.key_tiles + first;
  const Pair* columns[kVecs];
  const Pair* ahead[kVecs];
  __m512 sums[kRows][kVecs];
#pragma GCC unroll 16
  for (int v = 0; v < kVecs; ++v) {
    columns[v] = args.head->Keys(key_tiles[v]);
    ahead[v] =
        args.head->Keys(key_tiles[std::min(v + kTilesAhead, args.key_tiles_left - first - 1)]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  Multiply<kRows, kVecs, kPrefetch>(args.query, columns, ahead, args.head->block_size,
                                    args.head->head_dim / 2, sums);
#pragma GCC unroll 16
  for (int v = 0; v < kVecs; ++v) {
    float* to = args.scores + (key_tiles[v].rank - args.rank_begin);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      StoreVisible(sums[r][v], key_tiles[v].visible, to + r * kScoreStride);
    }
  }
}

template <int kRows, bool kPrefetch>
HWY_NOINLINE void ScoreRows(const ScoreArgs& args) {
  constexpr int kVecs = Columns(kRows);
  int g = 0;
  for (; g + kVecs <= args.key_tile_count; g += kVecs) {
    ScoreColumns<kRows, kVecs, kPrefetch>(args, g);
  }
  for (; g < args.key_tile_count; ++g) ScoreColumns<kRows, 1, kPrefetch>(args, g);
}

template <int kRows, int kVecs>
HWY_INLINE void ValueColumns(const ValueArgs& args, int dim) {
  const Pair* columns[kVecs];
  __m512 sums[kRows][kVecs];
#pragma GCC unroll 16
  for (int v = 0; v < kVecs; ++v) columns[v] = args.values + (dim / kPairDims + v) * kValueStride;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      sums[r][v] = _mm512_loadu_ps(args.sums + r * args.head_dim + dim + v * kPairDims);
    }
  }
  Multiply<kRows, kVecs, false>(args.weights, columns, columns, kPairDims, (args.keys + 1) / 2,
                                sums);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      _mm512_storeu_ps(args.sums + r * args.head_dim + dim + v * kPairDims, sums[r][v]);
    }
  }
}

template <int kRows>
HWY_NOINLINE void ValueRows(const ValueArgs& args) {
  constexpr int kVecs = Columns(kRows);
  constexpr int kFewer = kVecs / 2;  // 64 or 80 dims may not be a multiple of kVecs vectors.
  int dim = 0;
  for (; dim + kVecs * kPairDims <= args.head_dim; dim += kVecs * kPairDims) {
    ValueColumns<kRows, kVecs>(args, dim);
  }
  for (; dim + kFewer * kPairDims <= args.head_dim; dim += kFewer * kPairDims) {
    ValueColumns<kRows, kFewer>(args, dim);
  }
  for (; dim < args.head_dim; dim += kPairDims) ValueColumns<kRows, 1>(args, dim);
}

// Calls the instantiation for args.rows.
template <int kRows = kMaxRows>
void CallScoreRows(const ScoreArgs& args) {
  if constexpr (kRows > 1) {
    if (args.rows < kRows) return CallScoreRows<kRows - 1>(args);
  }
  if constexpr (kRows <= kFewRows) return ScoreRows<kRows, true>(args);
  ScoreRows<kRows, false>(args);
}

template <int kRows = kMaxRows>
void CallValueRows(const ValueArgs& args) {
  if constexpr (kRows > 1) {
    if (args.rows < kRows) return CallValueRows<kRows - 1>(args);
  }
  ValueRows<kRows>(args);
}

// Adds values that are used only once to kRows rows and kDims dims. Pairs are made on the way, in
// the order in which ValueColumns meets them.
template <int kRows, int kDims>
HWY_INLINE void ListedColumns(const Bfloat16* const* listed, const ValueArgs& args, int dim) {
  constexpr int kVecs = kDims / kPairDims;
  __m512 sums[kRows][kVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      sums[r][v] = _mm512_loadu_ps(args.sums + r * args.head_dim + dim + v * kPairDims);
    }
  }
  const int ahead = RowsAhead(args.head_dim);
  const auto add = [&](int n, const Bfloat16* even, __mmask32 odd_lanes, const Bfloat16* odd) {
    __m512bh pairs[kVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; v += 2) {
      const Interleaved both =
          Interleave(_mm512_loadu_si512(even + dim + v * kPairDims),
                     _mm512_maskz_loadu_epi16(odd_lanes, odd + dim + v * kPairDims));
      pairs[v] = reinterpret_cast<__m512bh>(both.low);
      pairs[v + 1] = reinterpret_cast<__m512bh>(both.high);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto weight = reinterpret_cast<__m512bh>(
          _mm512_set1_epi32(static_cast<int>(args.weights[r * kRowPairs + n / 2])));
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pairs[v], weight);
    }
  };
  int n = 0;
  for (; n + 2 <= args.keys; n += 2) {
#pragma GCC unroll 4
    for (int d = 0; d < kDims; d += 32) {
      _mm_prefetch(listed[n + ahead] + dim + d, _MM_HINT_T1);
      _mm_prefetch(listed[n + ahead + 1] + dim + d, _MM_HINT_T1);
    }
    add(n, listed[n], ~__mmask32{0}, listed[n + 1]);
  }
  if (n < args.keys) add(n, listed[n], 0, listed[n]);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      _mm512_storeu_ps(args.sums + r * args.head_dim + dim + v * kPairDims, sums[r][v]);
    }
  }
}

template <int kRows>
HWY_NOINLINE void ListedRows(const Bfloat16* const* listed, const ValueArgs& args) {
  int dim = 0;
  if constexpr (kRows <= 2) {  // The sums of 128 dims fit into registers.
    for (; dim + 128 <= args.head_dim; dim += 128) ListedColumns<kRows, 128>(listed, args, dim);
  }
  for (; dim + 64 <= args.head_dim; dim += 64) ListedColumns<kRows, 64>(listed, args, dim);
  for (; dim + 32 <= args.head_dim; dim += 32) ListedColumns<kRows, 32>(listed, args, dim);
}

struct PairEngine {
  static constexpr int kDirectRows = 4;
  static void AddListedValues(const Bfloat16* const* listed, const ValueArgs& args) {
    if (args.rows == 1) return ListedRows<1>(listed, args);
    if (args.rows == 2) return ListedRows<2>(listed, args);
    if (args.rows == 3) return ListedRows<3>(listed, args);
    ListedRows<4>(listed, args);
  }

  static constexpr int kRowMultiple = 1;
  static constexpr int kBandRows = kMaxRows;
  static void Begin() {}
  static void End() {}
  static void Scores(const ScoreArgs& args) { CallScoreRows(args); }
  static void AddValues(const ValueArgs& args) { CallValueRows(args); }
};

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

namespace structattn {

const AttentionKernel* Avx512Bf16AttentionKernel() {
  static constexpr AttentionKernel kKernel = {.name = "AVX512_BF16",
                                              .band = {.rows = kMaxRows, .row_multiple = 1},
                                              .supports = [](int) { return true; },
                                              .run = RunItem<PairEngine>};
  static const bool supported =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bf16");
  return supported ? &kKernel : nullptr;
}

}  // namespace structattn

#else  // Not x86-64.

namespace structattn {
const AttentionKernel* Avx512Bf16AttentionKernel() { return nullptr; }
}  // namespace structattn

#endif
