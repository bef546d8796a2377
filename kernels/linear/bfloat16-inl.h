// The linear kernels of CPUs that multiply bfloat16, on the layout of linear-inl.h, which says how
// to include it; on AVX-512 with AVX512_BF16 allowed, elsewhere it is empty. Pairs are a Format of
// the micro-kernel. On AMX an item is multiplied in tiles: 32 rows by a panel of 32 outputs in four
// tiles of sums, 32 inputs deep. `Tiles` is AmxTiles, or its software twin in a test.
//
// 16 units of half a panel of pairs are just the tile that tdpbf16ps wants: rows of 16 pairs, one
// of each output. Inputs are read where they are: 16 rows of 32 of them are the other tile.
//
// Sums. As linear-inl.h says, with one difference: the instruction sums 32 products in its own
// order before they meet the sum of those before. A row of sums depends on no other row.
//
// Speed. The multiplier takes 64 cycles for what four tiles of operands bring, and the second-level
// cache brings them in about 90: what counts is that they come from there. So a macro-panel is
// walked by all rows of the item, a slice at a time, while it stays in that cache; inputs pass by
// once per macro-panel. One or two tiles of rows read each weight once in any case: they take the
// panels one by one, from front to back, as memory likes it.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_LINEAR_BFLOAT16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_LINEAR_BFLOAT16_INL_H_
#undef STRUCTATTN_KERNELS_LINEAR_BFLOAT16_INL_H_
#else
#define STRUCTATTN_KERNELS_LINEAR_BFLOAT16_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "hwy/highway.h"
#include "kernels/dtype.h"
#include "kernels/linear/linear-inl.h"
#include "kernels/linear/linear_kernel.h"

#if HWY_TARGET == HWY_AVX3

namespace structattn::linear {
namespace HWY_NAMESPACE {
namespace {

struct Bfloat16Pairs {
  using Packed = uint32_t;
  using Input = Bfloat16;
  using Unit = uint32_t;
  static constexpr int kInputsPerUnit = 2;

  static __m512i LoadWeights(const Packed* from) { return _mm512_load_si512(from); }
  static __m512i Broadcast(const Unit* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static FloatVector MultiplyAdd(__m512i inputs, __m512i weights, FloatVector sum) {
    return FloatVector{_mm512_dpbf16_ps(sum.raw, (__m512bh)weights, (__m512bh)inputs)};
  }
  static void Stage(const Input* from, int64_t count, Unit* to) {
    if (count % 2 != 0) to[count / 2] = from[count - 1].bits;  // The absent half is 0.
    std::memcpy(to, from, sizeof(Input) * (count / 2 * 2));
  }
};

inline constexpr int kTileRows = 16;  // The units of a tile of weights, too.
inline constexpr int kBandRows = 2 * kTileRows;
inline constexpr int kTilePanels = 8;  // Panels of a macro-panel.
inline constexpr int kTileItemRows = 512;
inline constexpr int64_t kTileInputs = 2 * kTileRows;
inline constexpr int64_t kTilePairs = kTileRows * kPanelOutputs;  // Pairs of a tile of one panel.

// Up to 32 rows of the inputs, over one slice.
struct TileRows {
  TileRows(const LinearItem& item, int64_t begin, int64_t end, UnitRange slice)
      : begin(begin), count(static_cast<int>(end - begin)) {
    const auto* const inputs = static_cast<const Bfloat16*>(item.input);
    stride = item.inputs * static_cast<int64_t>(sizeof(Bfloat16));
    const int64_t first = slice.begin * 2;
    at = reinterpret_cast<const char*>(inputs + begin * item.inputs + first);
    const int64_t left = std::min(item.inputs, slice.end * 2) - first;
    whole_tiles = left / kTileInputs;
    if (left % kTileInputs == 0) return;
    // What lies behind a row's last input is another row's, and may be NaN.
    for (int row = 0; row < count; ++row) {
      char* const to = rest[row];
      const int64_t bytes = left % kTileInputs * static_cast<int64_t>(sizeof(Bfloat16));
      std::memcpy(to, at + row * stride + whole_tiles * sizeof(rest[0]), bytes);
      std::memset(to + bytes, 0, sizeof(rest[0]) - bytes);
    }
  }

  int64_t begin;
  int count;
  const char* at;
  int64_t stride;  // Bytes from row to row.
  int64_t whole_tiles;
  alignas(64) char rest[kBandRows][kTileInputs * sizeof(Bfloat16)];
};

template <class Tiles>
class TileItem {
 public:
  explicit TileItem(const LinearItem& item)
      : item_(item), single_(item.row_end - item.row_begin <= kBandRows) {}

  void Run() {
    const int64_t panel_count = (item_.outputs + kSumStride - 1) / kSumStride;
    const int64_t macro_panel = single_ ? 1 : kTilePanels;
    for (int64_t first = 0; first < panel_count; first += macro_panel) {
      RunMacroPanel(first, std::min(macro_panel, panel_count - first));
    }
    if (configured_rows_ > 0) Tiles::Release();
  }

 private:
  static constexpr int kSumStride = kPanelOutputs;
  static constexpr int64_t kPanelUnitBytes = kSumStride * sizeof(uint32_t);
  static constexpr int64_t kBandSums = kBandRows * kSumStride;

  // A single band of rows takes a panel in one go.
  void RunMacroPanel(int64_t first, int64_t count) {
    const int64_t most = single_ ? item_.units : kSliceUnits;
    for (int64_t begin = 0; begin < item_.units; begin += most) {
      const UnitRange slice = {begin, std::min(begin + most, item_.units)};
      for (int64_t row = item_.row_begin; row < item_.row_end; row += kBandRows) {
        const TileRows rows(item_, row, std::min(row + kBandRows, item_.row_end), slice);
        if (rows.count != configured_rows_) {  // Sets the tiles' rows, which empties them.
          Tiles::Configure(std::min(rows.count, kTileRows), std::max(rows.count - kTileRows, 1));
          configured_rows_ = rows.count;
        }
        float* waiting = waiting_ + (row - item_.row_begin) / kBandRows * kTilePanels * kBandSums;
        for (int64_t panel = first; panel < first + count; ++panel, waiting += kBandSums) {
          if (rows.count > kTileRows) {
            RunTiles<2>(rows, panel, slice, waiting);
          } else {
            RunTiles<1>(rows, panel, slice, waiting);
          }
        }
      }
    }
  }

  // Of a band that is kHeight tiles high: adds the products of a slice to the sums, which wait in
  // memory for the next one. Tiles 0 to 3 are sums, 4 and 5 the rows, 6 and 7 the halves of the
  // panel.
  template <int kHeight>
  void RunTiles(const TileRows& rows, int64_t panel, UnitRange slice, float* waiting) const {
    ForSums<kHeight>(kSumStride, [&]<int kTile>(int64_t at) {
      if (slice.begin == 0) {
        Tiles::template Zero<kTile>();
      } else {
        Tiles::template Load<kTile>(waiting + at, kSumStride * sizeof(float));
      }
    });
    const auto* const weights = static_cast<const uint32_t*>(item_.panels) +
                                (panel * item_.units + slice.begin) * kPanelOutputs;
    if (rows.begin == item_.row_begin) {  // Later rows find the panel in a cache.
      Multiply<kHeight, true>(rows, weights, slice);
    } else {
      Multiply<kHeight, false>(rows, weights, slice);
    }
    if (slice.end == item_.units) {
      Finish<kHeight>(rows, panel);
    } else {
      StoreSums<kHeight>(waiting, kSumStride);
    }
  }

  // use.operator()<tile>(place of its first sum, where rows are `stride` apart) for tiles of sums.
  template <int kHeight, class Use>
  static void ForSums(int64_t stride, const Use& use) {
    use.template operator()<0>(0);
    use.template operator()<1>(kTileRows);
    if constexpr (kHeight == 2) {
      use.template operator()<2>(kTileRows * stride);
      use.template operator()<3>(kTileRows * stride + kTileRows);
    }
  }

  template <int kHeight>
  static void StoreSums(float* to, int64_t stride) {
    ForSums<kHeight>(stride, [&]<int kTile>(int64_t at) {
      Tiles::template Store<kTile>(to + at, stride * int64_t{sizeof(float)});
    });
  }

  // A CPU (Granite Rapids) that has not stored a tile for half a microsecond takes another third of
  // one for its next. So a tile that is at hand is stored now and then, and not read.
  template <int kHeight, bool kFetch>
  static void Multiply(const TileRows& rows, const uint32_t* panel, UnitRange slice) {
    constexpr int64_t kTilesPerStore = 8;
    alignas(64) float unread[kTileRows * kLanes];
    const char* at = rows.at;
    for (int64_t tile = 0; tile < rows.whole_tiles; ++tile) {
      if (tile % kTilesPerStore == kTilesPerStore - 1) {
        Tiles::template Store<6>(unread, kPanelUnitBytes / 2);
      }
      MultiplyTile<kHeight, kFetch>(at, rows.stride, panel);
      at += sizeof(rows.rest[0]);
      panel += kTilePairs;
    }
    if (rows.whole_tiles * kTileRows < slice.end - slice.begin) {
      MultiplyTile<kHeight, kFetch>(rows.rest[0], sizeof(rows.rest[0]), panel);
    }
  }

  template <int kHeight, bool kFetch>
  static void MultiplyTile(const char* rows, int64_t stride, const uint32_t* panel) {
    if constexpr (kFetch) {
      constexpr int64_t kAhead = 4 * kTilePairs;
      for (int64_t pair = 0; pair < kTilePairs; pair += kLanes) {
        __builtin_prefetch(panel + kAhead + pair, /*rw=*/0, /*locality=*/2);
      }
    }
    Tiles::template Load<4>(rows, stride);
    Tiles::template Load<6>(panel, kPanelUnitBytes);
    Tiles::template MultiplyAdd<0, 4, 6>();
    Tiles::template Load<7>(panel + kLanes, kPanelUnitBytes);
    Tiles::template MultiplyAdd<1, 4, 7>();
    if constexpr (kHeight == 2) {
      Tiles::template Load<5>(rows + kTileRows * stride, stride);
      Tiles::template MultiplyAdd<2, 5, 6>();
      Tiles::template MultiplyAdd<3, 5, 7>();
    }
  }

  // The sums become outputs, straight from the tiles where nothing is to be added.
  template <int kHeight>
  void Finish(const TileRows& rows, int64_t panel) const {
    const int64_t first = panel * kSumStride;
    const int64_t outputs = std::min<int64_t>(kSumStride, item_.outputs - first);
    float* const to = item_.output + rows.begin * item_.output_stride + first;
    const float* const bias = item_.bias == nullptr ? nullptr : item_.bias + first;
    if (outputs == kSumStride && bias == nullptr && !item_.accumulate) {
      return StoreSums<kHeight>(to, item_.output_stride);
    }
    alignas(64) float sums[kBandSums];
    StoreSums<kHeight>(sums, kSumStride);
    for (int row = 0; row < rows.count; ++row) {
      const int64_t place = row * item_.output_stride;
      for (int output = 0; output < outputs; output += kLanes) {
        const auto left = static_cast<int>(outputs - output);
        const auto mask = static_cast<__mmask16>(left < kLanes ? (1 << left) - 1 : 0xffff);
        __m512 sum = _mm512_load_ps(sums + row * kSumStride + output);
        if (bias != nullptr) sum = sum + _mm512_maskz_loadu_ps(mask, bias + output);
        if (item_.accumulate) sum = sum + _mm512_maskz_loadu_ps(mask, to + place + output);
        _mm512_mask_storeu_ps(to + place + output, mask, sum);
      }
    }
  }

  const LinearItem& item_;
  const bool single_;  // One band of rows.
  int configured_rows_ = 0;
  alignas(64) float waiting_[kTileItemRows / kBandRows * kTilePanels * kBandSums];
};

template <class Tiles>
void RunTileItem(const LinearItem& item) {
  TileItem<Tiles>(item).Run();
}

template <class Tiles>
constexpr LinearKernel TileKernel(std::string_view name) {
  return {.name = name,
          .dtype = DType::kBfloat16,
          .panel_outputs = kPanelOutputs,
          .inputs_per_unit = 2,
          .units_multiple = kTileRows,
          .item_rows = kTileItemRows,
          .run = RunTileItem<Tiles>};
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear

#endif  // HWY_TARGET == HWY_AVX3

#endif  // STRUCTATTN_KERNELS_LINEAR_BFLOAT16_INL_H_
