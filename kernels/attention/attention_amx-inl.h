// The Engine of attention_bf16-inl.h that multiplies the tile registers of AMX: 32 rows by 32 keys
// or dims at a time, 32 dims or key ranks deep. `Tiles` is AmxTiles, or in tests its software twin.
// Everything here has internal linkage.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_AMX_INL_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_AMX_INL_H_

#include <immintrin.h>

#include <cstdint>
#include <string_view>

#include "hwy/base.h"
#include "kernels/attention/attention_bf16-inl.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/attention/key_tiles.h"

HWY_PUSH_ATTRIBUTES(STRUCTATTN_BF16_ATTRIBUTES)

namespace structattn {
namespace {

// Tile registers 0 to 3 hold two by two tiles of sums; those from kRowTile and from kColumnTile
// hold the two tiles of rows and of columns that are multiplied.
inline constexpr int kTileRows = 16;
inline constexpr int kRowTile = 4;
inline constexpr int kColumnTile = 6;

// One operand of a product in memory. Tile n begins at at[n], its rows are `stride` bytes apart,
// and the next depth lies `depth_stride` pairs on.
struct TileOperand {
  const Pair* at[2];
  int64_t stride;
  int64_t depth_stride;
};

template <class Tiles, int kRows, int kColumns>
inline void MultiplyTiles(const TileOperand& rows, const TileOperand& columns, int depth) {
  for (int d = 0; d < depth; ++d) {
    Tiles::template Load<kRowTile>(rows.at[0] + d * rows.depth_stride, rows.stride);
    Tiles::template Load<kColumnTile>(columns.at[0] + d * columns.depth_stride, columns.stride);
    Tiles::template MultiplyAdd<0, kRowTile, kColumnTile>();
    if constexpr (kColumns == 2) {
      Tiles::template Load<kColumnTile + 1>(columns.at[1] + d * columns.depth_stride,
                                            columns.stride);
      Tiles::template MultiplyAdd<1, kRowTile, kColumnTile + 1>();
    }
    if constexpr (kRows == 2) {
      Tiles::template Load<kRowTile + 1>(rows.at[1] + d * rows.depth_stride, rows.stride);
      Tiles::template MultiplyAdd<2, kRowTile + 1, kColumnTile>();
      if constexpr (kColumns == 2) {
        Tiles::template MultiplyAdd<3, kRowTile + 1, kColumnTile + 1>();
      }
    }
  }
}

template <class Tiles>
struct TileEngine {
  static constexpr int kRowMultiple = kTileRows;
  static constexpr int kBandRows = 2 * kTileRows;
  static constexpr int kDirectRows = 0;
  static void Begin() { Tiles::Configure(); }
  static void End() { Tiles::Release(); }

  static void Scores(const ScoreArgs& args) {
    if (args.rows > kTileRows) return ScoreRows<2>(args);
    ScoreRows<1>(args);
  }

  static void AddValues(const ValueArgs& args) {
    if (args.rows > kTileRows) return ValueRows<2>(args);
    ValueRows<1>(args);
  }

 private:
  // The operand that rows of queries or weights are.
  static TileOperand RowOperand(const Pair* rows) {
    return {.at = {rows, rows + kTileRows * kRowPairs},
            .stride = kRowPairs * static_cast<int64_t>(sizeof(Pair)),
            .depth_stride = kPairDims};
  }

  template <int kRows>
  static void ScoreRows(const ScoreArgs& args) {
    int g = 0;
    for (; g + 2 <= args.key_tile_count; g += 2) ScoreTiles<kRows, 2>(args, args.key_tiles + g);
    if (g < args.key_tile_count) ScoreTiles<kRows, 1>(args, args.key_tiles + g);
  }

  template <int kRows, int kColumns>
  static void ScoreTiles(const ScoreArgs& args, const KeyTile* key_tiles) {
    ZeroSums<kRows, kColumns>();
    const int64_t block_size = args.head->block_size;
    const TileOperand keys = {
        .at = {args.head->Keys(key_tiles[0]), args.head->Keys(key_tiles[kColumns - 1])},
        .stride = block_size * static_cast<int64_t>(sizeof(Pair)),
        .depth_stride = kTileRows * block_size};
    MultiplyTiles<Tiles, kRows, kColumns>(RowOperand(args.query), keys,
                                          args.head->head_dim / (2 * kTileRows));
    StoreScores<0>(args, key_tiles[0], 0);
    if constexpr (kRows == 2) StoreScores<2>(args, key_tiles[0], kTileRows);
    if constexpr (kColumns == 2) StoreScores<1>(args, key_tiles[1], 0);
    if constexpr (kRows == 2 && kColumns == 2) StoreScores<3>(args, key_tiles[1], kTileRows);
  }

  // Is called in order of key rank, because a key tile that is not wholly visible clobbers what the
  // next one writes.
  template <int kTile>
  static void StoreScores(const ScoreArgs& args, const KeyTile& key_tile, int row) {
    float* to = args.scores + row * kScoreStride + (key_tile.rank - args.rank_begin);
    if (key_tile.visible == 0xffff) {
      Tiles::template Store<kTile>(to, kScoreStride * sizeof(float));
      return;
    }
    alignas(64) float all[kTileRows * kTileKeys];
    Tiles::template Store<kTile>(all, kTileKeys * sizeof(float));
    for (int r = 0; r < kTileRows; ++r) {
      StoreVisible(_mm512_load_ps(all + r * kTileKeys), key_tile.visible, to + r * kScoreStride);
    }
  }

  template <int kRows>
  static void ValueRows(const ValueArgs& args) {
    for (int dim = 0; dim < args.head_dim; dim += 2 * kPairDims) {
      float* sums = args.sums + dim;
      const int64_t stride = args.head_dim * static_cast<int64_t>(sizeof(float));
      Tiles::template Load<0>(sums, stride);
      Tiles::template Load<1>(sums + kPairDims, stride);
      if constexpr (kRows == 2) {
        Tiles::template Load<2>(sums + kTileRows * args.head_dim, stride);
        Tiles::template Load<3>(sums + kTileRows * args.head_dim + kPairDims, stride);
      }
      const Pair* column = args.values + dim / kPairDims * kValueStride;
      const TileOperand values = {.at = {column, column + kValueStride},
                                  .stride = kPairDims * static_cast<int64_t>(sizeof(Pair)),
                                  .depth_stride = kTileRows * kPairDims};
      MultiplyTiles<Tiles, kRows, 2>(RowOperand(args.weights), values,
                                     (args.keys + 2 * kTileRows - 1) / (2 * kTileRows));
      Tiles::template Store<0>(sums, stride);
      Tiles::template Store<1>(sums + kPairDims, stride);
      if constexpr (kRows == 2) {
        Tiles::template Store<2>(sums + kTileRows * args.head_dim, stride);
        Tiles::template Store<3>(sums + kTileRows * args.head_dim + kPairDims, stride);
      }
    }
  }

  template <int kRows, int kColumns>
  static void ZeroSums() {
    Tiles::template Zero<0>();
    if constexpr (kColumns == 2) Tiles::template Zero<1>();
    if constexpr (kRows == 2) Tiles::template Zero<2>();
    if constexpr (kRows == 2 && kColumns == 2) Tiles::template Zero<3>();
  }
};

template <class Tiles>
constexpr AttentionKernel TileKernel(std::string_view name) {
  return {.name = name,
          .band = {.rows = TileEngine<Tiles>::kBandRows, .row_multiple = kTileRows},
          .supports = [](int head_dim) { return head_dim % (2 * kTileRows) == 0; },
          .run = RunItem<TileEngine<Tiles>>};
}

}  // namespace
}  // namespace structattn

HWY_POP_ATTRIBUTES

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_AMX_INL_H_
