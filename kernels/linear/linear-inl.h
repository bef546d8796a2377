// The packed layout of weights and the way through it: the micro-kernel in vector registers, and
// staging, slices and macro-panels around it.
//
// Include it, and what includes it, between the attributes of the instruction set that HWY_TARGET
// stands for, after all that it includes: what is in an anonymous namespace here is compiled for
// those.
//
// Layout. The weight [outputs, inputs] is cut into panels of P outputs, and inputs into units of S
// (S = 2 where one instruction multiplies pairs, else 1). A panel is contiguous, so that decoding
// streams it once from front to back; the lanes of a vector are outputs:
//
//              P = 2 vectors of L lanes
//            +-----------------+-----------------+
//   unit 0   | o0   ...   oL-1 | oL   ...  o2L-1 |   each place: S inputs of one output
//   unit 1   | o0   ...   oL-1 | oL   ...  o2L-1 |
//     ...    |                 |                 |
//   unit U-1 | o0   ...   oL-1 | oL   ...  o2L-1 |   U = ceil(inputs / S); missing inputs are 0
//            +-----------------+-----------------+
//   next panel: outputs 2L .. 4L-1, and so on; missing outputs of the last panel are 0
// Where a kernel takes several units at once, zeros fill the panel up to a multiple of them.
//
// Sums. Output (m, n) is one chain sum = sum + x[m][unit] * w[n][unit] over ascending units, begun
// at 0; the bias and what is accumulated are added at the end, in this order. Which rows and panels
// share a tile, and where the units are cut into slices (a sum waits in memory as a float,
// unchanged), never enters it. Hence the bits of an output depend on its own row and weight alone.
//
// Speed. The inputs of an item's rows are staged into a small buffer with a skewed stride (rows
// that lie a multiple of 4 KiB apart would fight for the same cache sets), in the form that the
// micro-kernel multiplies. A slice of a panel stays in the caches while all row tiles of the item
// meet it, and they fetch the next one meanwhile: memory and multipliers work at once.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_LINEAR_LINEAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_LINEAR_LINEAR_INL_H_
#undef STRUCTATTN_KERNELS_LINEAR_LINEAR_INL_H_
#else
#define STRUCTATTN_KERNELS_LINEAR_LINEAR_INL_H_
#endif

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/dtype.h"
#include "kernels/linear/linear_kernel.h"

namespace structattn::linear {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVector = hn::Vec<FloatTag>;
inline constexpr int kLanes = HWY_LANES(float);
inline constexpr int kPanelOutputs = 2 * kLanes;

// A vector of halves, as floats.
inline FloatVector LoadHalves(const void* from) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const hn::Rebind<hwy::float16_t, FloatTag> halves;  // One instruction (F16C).
  return hn::PromoteTo(FloatTag(), hn::LoadU(halves, static_cast<const hwy::float16_t*>(from)));
#else
  alignas(64) float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = ToFloat(static_cast<const Float16*>(from)[i]);
  return hn::Load(FloatTag(), values);
#endif
}

// Registers for sums: the most rows of a tile, and all sums of a tile of few rows.
inline constexpr int kMaxRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 4;
inline constexpr int kMaxSums = kLanes == 16 ? 16 : kLanes == 8 ? 12 : 8;

inline constexpr int kSliceUnits = 512;
inline constexpr int kStagedStride = kSliceUnits + 16;  // In units: 64 bytes of skew.

// What is multiplied. A unit is kInputsPerUnit inputs side by side: Unit of a row, to be broadcast,
// and Packed of an output, a place of the layout above.
template <class F>
concept Format = requires(const typename F::Packed* packed, const typename F::Input* inputs,
                          typename F::Unit* units, int64_t count, FloatVector sum) {
  { F::MultiplyAdd(F::Broadcast(units), F::LoadWeights(packed), sum) } -> std::same_as<FloatVector>;
  F::Stage(inputs, count, units);
  requires F::kInputsPerUnit >= 1;
};

// The bytes of one unit of a panel.
template <Format F>
inline constexpr int kUnitBytes = kPanelOutputs * sizeof(typename F::Packed);

// Units [begin, end) of a panel or of inputs.
struct UnitRange {
  int64_t begin;
  int64_t end;
  int64_t count() const { return end - begin; }
};

// Where the sums of a tile begin and end. Pointers are at the tile's first row and panel.
struct SumPlaces {
  const float* from;  // The sums so far, rows from_stride floats apart; null: they begin at 0.
  int64_t from_stride;
  float* to;  // May be `from`.
  int64_t to_stride;
  const float* bias;  // Added at the end; may be null.
  bool accumulate;    // Add what is at `to`, after the bias.

  // Moves on by so many outputs of the same rows.
  void Move(int64_t outputs) {
    if (from != nullptr) from += outputs;
    to += outputs;
    if (bias != nullptr) bias += outputs;
  }
};

template <Format F>
struct MicroKernelArgs {
  const typename F::Packed* panel;
  int64_t panel_stride;  // From panel to panel.
  const typename F::Unit* staged;
  SumPlaces sums;
  int64_t units;
  // What to fetch meanwhile, and how far to move on after each unit: bytes, of no panel in use.
  const char* prefetch;
  int64_t prefetch_stride;
};

// The sum so far of the vector of outputs that begins `output` from the tile's first, in a row.
inline FloatVector BeginSum(const SumPlaces& at, int64_t row, int64_t output) {
  if (at.from == nullptr) return hn::Zero(FloatTag());
  return hn::LoadU(FloatTag(), at.from + row * at.from_stride + output);
}

inline void EndSum(const SumPlaces& at, int64_t row, int64_t output, FloatVector sum) {
  float* const to = at.to + row * at.to_stride + output;
  if (at.bias != nullptr) sum = hn::Add(sum, hn::LoadU(FloatTag(), at.bias + output));
  if (at.accumulate) sum = hn::Add(sum, hn::LoadU(FloatTag(), to));
  hn::StoreU(sum, FloatTag(), to);
}

// The first `outputs` of a row, less than a vector of them or more.
inline void EndRest(const SumPlaces& at, int64_t outputs) {
  for (int64_t i = 0; i < outputs; ++i) {
    float sum = at.from[i];
    if (at.bias != nullptr) sum += at.bias[i];
    if (at.accumulate) sum += at.to[i];
    at.to[i] = sum;
  }
}

// Adds a slice of units to the sums of kRows rows and kPanels panels. It fetches ahead when it
// works on a single panel. It is never inlined: among its caller's variables the compiler would
// keep the loop's pointers in memory (4 % of AVX2's speed).
template <Format F, int kRows, int kPanels>
HWY_NOINLINE void MicroKernel(const MicroKernelArgs<F>& args) {
  constexpr int kVectors = 2 * kPanels;
  FloatVector sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const int64_t output = v * kLanes;
      __builtin_prefetch(args.sums.to + r * args.sums.to_stride + output,
                         /*rw=*/1);
      sums[r][v] = BeginSum(args.sums, r, output);
    }
  }
  const typename F::Packed* panel = args.panel;
  const typename F::Unit* staged = args.staged;
  const char* prefetch = args.prefetch;
  for (int64_t unit = 0; unit < args.units; ++unit) {
    if constexpr (kPanels == 1) {
      for (int line = 0; line < kUnitBytes<F>; line += 64) {
        __builtin_prefetch(prefetch + line, /*rw=*/0, /*locality=*/2);
      }
      prefetch += args.prefetch_stride;
    }
    decltype(F::LoadWeights(panel)) weights[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = F::LoadWeights(panel + (v / 2) * args.panel_stride + (v % 2) * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto inputs = F::Broadcast(staged + r * kStagedStride);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = F::MultiplyAdd(inputs, weights[v], sums[r][v]);
      }
    }
    panel += kPanelOutputs;
    ++staged;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) EndSum(args.sums, r, v * kLanes, sums[r][v]);
  }
}

// Few rows leave registers free: such a tile walks several panels side by side, which hides the
// latency of the chains and keeps several streams from memory going.
constexpr int WidePanels(int rows) {
  int panels = 4;
  while (panels > 1 && rows * 2 * panels > kMaxSums) panels /= 2;
  return panels;
}

// Runs the micro-kernel for `rows` rows over `panels` panels, searching the row count at compile
// time.
template <Format F, int kRows = kMaxRows>
void RunMicroKernel(int rows, int panels, MicroKernelArgs<F> args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return RunMicroKernel<F, kRows - 1>(rows, panels, args);
  }
  constexpr int kWide = WidePanels(kRows);
  while (panels > 0) {
    const int done = panels >= kWide ? kWide : 1;
    if (done == kWide) {
      MicroKernel<F, kRows, kWide>(args);
    } else {
      MicroKernel<F, kRows, 1>(args);
    }
    args.panel += done * args.panel_stride;
    args.sums.Move(done * kPanelOutputs);
    panels -= done;
  }
}

// The inputs of all rows of an item in one slice.
template <Format F>
class StagedInputs {
 public:
  explicit StagedInputs(const LinearItem& item) : item_(item) {}

  void Stage(UnitRange slice) {
    if (slice.begin == staged_begin_) return;
    staged_begin_ = slice.begin;
    constexpr int64_t kPerUnit = F::kInputsPerUnit;
    const int64_t begin = slice.begin * kPerUnit;
    const int64_t end = std::min(slice.end * kPerUnit, item_.inputs);
    for (int64_t row = item_.row_begin; row < item_.row_end; ++row) {
      const auto* from =
          static_cast<const typename F::Input*>(item_.input) + row * item_.inputs + begin;
      typename F::Unit* const to = units_ + (row - item_.row_begin) * kStagedStride;
      F::Stage(from, end - begin, to);
      for (int64_t unit = (end - begin + kPerUnit - 1) / kPerUnit; unit < slice.count(); ++unit) {
        to[unit] = 0;
      }
    }
  }

  const typename F::Unit* Row(int64_t row) const { return units_ + row * kStagedStride; }

 private:
  const LinearItem& item_;
  int64_t staged_begin_ = -1;
  alignas(64) typename F::Unit units_[kItemRows * kStagedStride];
};

// How panels whose numbers are not F::Packed, which is float then, become so. For few rows, units
// are multiplied where they were expanded, in registers; else a piece of a slice is expanded just
// before it is multiplied, and stays in the first-level cache. The sums meet the same weights, in
// the same order, as if the panel had held them as floats.
struct Expander {
  // Expands units of a panel; bounds are multiples of kChunkInputs if it is quantized.
  void (*expand)(const void* panel, UnitRange units, float* to);
  int64_t unit_bytes;  // A panel's bytes a unit, to fetch ahead; 0 if `expand` does it.
  // Adds such units to the sums, [rows, kPanelOutputs], of up to kMostFewRows rows; or null.
  static constexpr int kMostFewRows = 4;
  void (*multiply)(int rows, const void* panel, UnitRange units, const float* staged, float* sums);
};

// Neighbouring panels of an item, worked on side by side: kMacroPanels of them, fewer at its end.
// Sums are in registers within a piece of the units, wait here between two, and go straight to the
// output after the last; only those of a panel with missing outputs wait here for that, too.
template <Format F>
class MacroPanel {
 public:
  MacroPanel(const LinearItem& item, const Expander* expander)
      : item_(item), expander_(expander), panels_(static_cast<const char*>(item.panels)) {
    Begin(0);
  }

  bool ended() const { return first_ >= item_.outputs; }

  // Moves on to the next panels.
  void Next() {
    panels_ += Count() * item_.panel_bytes;
    Begin(first_ + kSumStride);
  }

  // One slice for all rows.
  void RunSlice(const StagedInputs<F>& inputs, UnitRange slice) {
    const auto rows = static_cast<int>(item_.row_end - item_.row_begin);
    if (expander_ != nullptr && rows <= Expander::kMostFewRows && expander_->multiply != nullptr) {
      for (int panel = 0; panel < Count(); ++panel) MultiplyFewRows(inputs, panel, slice, rows);
      return;
    }
    const bool wide = expander_ == nullptr && rows <= kMaxRows && WidePanels(rows) > 1;
    const int64_t most = expander_ == nullptr ? kSliceUnits : kPieceUnits;
    for (int panel = 0, together; panel < Count(); panel += together) {
      together = wide && panel < whole_ ? whole_ - panel : 1;
      for (int64_t begin = slice.begin; begin < slice.end; begin += most) {
        RunPiece(inputs, {begin, std::min(begin + most, slice.end)}, begin - slice.begin,
                 {panel, panel + together});
      }
    }
  }

  // After the last slice: the outputs of a panel with missing ones.
  void StoreRest() {
    const int64_t first = first_ + whole_ * kPanelOutputs;
    for (int64_t row = item_.row_begin; row < item_.row_end && Count() > whole_; ++row) {
      EndRest({.from = sums_ + (row - item_.row_begin) * kSumStride + whole_ * kPanelOutputs,
               .from_stride = 0,
               .to = item_.output + row * item_.output_stride + first,
               .to_stride = 0,
               .bias = item_.bias == nullptr ? nullptr : item_.bias + first,
               .accumulate = item_.accumulate},
              item_.outputs - first);
    }
  }

 private:
  static constexpr int64_t kSumStride = kMacroPanels * kPanelOutputs;
  static constexpr int64_t kPieceUnits = 128;  // Units expanded at once.
  static_assert(kSliceUnits % kPieceUnits == 0 && kPieceUnits % kChunkInputs == 0);

  void Begin(int64_t output) {
    first_ = output;
    whole_ = static_cast<int>(std::min(item_.outputs - first_, kSumStride) / kPanelOutputs);
  }

  int Count() const {
    const int64_t outputs = first_ + whole_ * kPanelOutputs;
    return whole_ + (whole_ < kMacroPanels && outputs < item_.outputs ? 1 : 0);
  }

  const char* At(int panel) const { return panels_ + panel * item_.panel_bytes; }

  // Units of panels [begin, end), in tiles of nearly equal height, each fetching its share of what
  // is read next, by all likelihood. `staged`: the piece's first unit, counted from the slice's.
  void RunPiece(const StagedInputs<F>& inputs, UnitRange units, int64_t staged,
                std::pair<int, int> panels) {
    const auto [panel, end_panel] = panels;
    int64_t next_unit_bytes = kUnitBytes<F>;
    const char* next = At(panel + 1 < Count() ? panel + 1 : 0) +
                       (panel + 1 < Count() ? units.begin : units.end) * next_unit_bytes;
    const auto* weights =
        reinterpret_cast<const typename F::Packed*>(At(panel) + units.begin * next_unit_bytes);
    if constexpr (std::is_same_v<typename F::Packed, float>) {
      if (expander_ != nullptr) {
        expander_->expand(At(panel), units, expanded_);
        weights = expanded_;
        next_unit_bytes = expander_->unit_bytes;
        next = next_unit_bytes == 0 ? reinterpret_cast<const char*>(expanded_)
                                    : At(panel) + units.end * next_unit_bytes;
      }
    }
    const int64_t rows = item_.row_end - item_.row_begin;
    const int64_t tiles = (rows + kMaxRows - 1) / kMaxRows;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles;
      const int64_t end = rows * (tile + 1) / tiles;
      RunMicroKernel<F>(static_cast<int>(end - begin), end_panel - panel,
                        {.panel = weights,
                         .panel_stride = item_.panel_bytes / int64_t{sizeof(*weights)},
                         .staged = inputs.Row(begin) + staged,
                         .sums = PlacesOf(begin, panel, units),
                         .units = units.count(),
                         .prefetch = next + units.count() * next_unit_bytes * tile / tiles,
                         .prefetch_stride = next_unit_bytes / tiles});
    }
  }

  void MultiplyFewRows(const StagedInputs<F>& inputs, int panel, UnitRange slice, int rows) {
    if constexpr (std::is_same_v<typename F::Unit, float>) {
      const SumPlaces at = PlacesOf(0, panel, slice);
      alignas(64) float sums[Expander::kMostFewRows * kPanelOutputs];
      for (int i = 0; i < 2 * rows; ++i) {
        hn::Store(BeginSum(at, i / 2, i % 2 * kLanes), FloatTag(), sums + i * kLanes);
      }
      expander_->multiply(rows, At(panel), slice, inputs.Row(0), sums);
      for (int i = 0; i < 2 * rows; ++i) {
        EndSum(at, i / 2, i % 2 * kLanes, hn::Load(FloatTag(), sums + i * kLanes));
      }
    }
  }

  SumPlaces PlacesOf(int64_t row, int64_t panel, UnitRange units) {
    const int64_t output = panel * kPanelOutputs;
    float* const waiting = sums_ + row * kSumStride + output;
    const float* const from = units.begin == 0 ? nullptr : waiting;
    if (units.end < item_.units || panel == whole_) {
      return {from, kSumStride, waiting, kSumStride, nullptr, false};
    }
    return {.from = from,
            .from_stride = kSumStride,
            .to = item_.output + (item_.row_begin + row) * item_.output_stride + first_ + output,
            .to_stride = item_.output_stride,
            .bias = item_.bias == nullptr ? nullptr : item_.bias + first_ + output,
            .accumulate = item_.accumulate};
  }

  const LinearItem& item_;
  const Expander* const expander_;  // Null: panels hold F::Packed.
  const char* panels_;              // The first one here.
  int64_t first_ = 0;               // Its first output in the item.
  int whole_ = 0;                   // Panels without missing outputs: all, or all but the last.
  alignas(64) float sums_[kItemRows * kSumStride];
  alignas(64) float expanded_[kPieceUnits * kPanelOutputs];
};

template <Format F>
void RunItem(const LinearItem& item, const Expander* expander) {
  StagedInputs<F> inputs(item);
  for (MacroPanel<F> panels(item, expander); !panels.ended(); panels.Next()) {
    for (int64_t begin = 0; begin < item.units; begin += kSliceUnits) {
      const UnitRange slice = {begin, std::min(begin + kSliceUnits, item.units)};
      inputs.Stage(slice);
      panels.RunSlice(inputs, slice);
    }
    panels.StoreRest();
  }
}

// Runs the item on panels that the micro-kernel multiplies as they are.
template <Format F>
void RunPacked(const LinearItem& item) {
  RunItem<F>(item, nullptr);
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear

#endif  // STRUCTATTN_KERNELS_LINEAR_LINEAR_INL_H_
