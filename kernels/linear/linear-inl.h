// The packed layout of weights and the matrix kernel over it, as templates over a Format.
// Included once by each linear_<isa>.cc, between the pragmas that select its instruction set, after
// "kernels/linear/linear_kernel.h" and <cstring>; so it includes nothing, and everything here has
// internal linkage. Nobody else includes it.
//
// Layout. The weight [outputs, inputs] is cut into panels of P outputs, and inputs into steps of S
// (S = 2 where one instruction multiplies pairs, else 1). A panel is contiguous, so that decoding
// streams it once from front to back; the lanes of a vector are outputs:
//
//              P = 2 vectors of L lanes
//            +-----------------+-----------------+
//   step 0   | o0   ...   oL-1 | oL   ...  o2L-1 |   each cell: S inputs of one output
//   step 1   | o0   ...   oL-1 | oL   ...  o2L-1 |
//     ...    |                 |                 |
//   step T-1 | o0   ...   oL-1 | oL   ...  o2L-1 |   T = ceil(inputs / S); missing inputs are 0
//            +-----------------+-----------------+
//   next panel: outputs 2L .. 4L-1, and so on; missing outputs of the last panel are 0
//
// Sums. Output (m, n) is one chain sum = sum + x[m][step] * w[n][step] over ascending steps, begun
// at 0, with bias and residual added at the end in this order. Which rows and panels share a tile,
// and where the steps are cut into blocks (a sum waits in memory as a float, unchanged), never
// enters it. Hence the bits of an output depend on its own row and weight alone.
//
// Speed. A tile keeps R x P sums in registers; per step it loads the 2 vectors of a panel once and
// broadcasts R inputs. The inputs of R rows are staged into a small buffer with a skewed stride
// (rows that lie a multiple of 4 KiB apart would fight for the same cache sets), widened to float
// where the format says so. A block of steps of a panel stays in the caches while all row tiles of
// the item meet it, and they fetch the next one meanwhile: memory and multipliers work at once.

namespace structattn {
namespace {

// A Format has: Vector (kLanes floats), Unit (one broadcast: a float, or two 16-bit inputs), Stored
// (one cell of the layout), Input (one input in memory), kInputsPerStep, kMaxRows (of a tile),
// kMaxSums (vectors of sums in a tile of few rows over many panels), Zero, Load, Store,
// MultiplyAdd(unit, cell, sum), and Stage(from, count, to): `count` inputs into units.

inline constexpr int kStepsPerBlock = 512;
inline constexpr int kStagedStride = kStepsPerBlock + 16;  // Units: 64 bytes of skew.

inline constexpr int kLineBytes = 64;

template <class Format>
inline constexpr int kPanelOutputs = 2 * Format::kLanes;

// Of one panel.
template <class Format>
inline constexpr int kStepBytes = kPanelOutputs<Format> * sizeof(typename Format::Stored);

template <class Format>
struct TileArgs {
  const typename Format::Stored* panel;
  int64_t panel_stride;  // Cells from panel to panel.
  const typename Format::Unit* staged;
  float* sums;  // [kRows, kGroupPanels * kPanelOutputs]
  int64_t steps;
  // What to fetch meanwhile, and how far to move on after each step: bytes, of no panel in use.
  const char* prefetch = nullptr;
  int64_t prefetch_stride = 0;
};

// Adds the steps of one block to the sums of kRows rows and kPanels panels. Fetches ahead when it
// works on a single panel.
template <class Format, int kRows, int kPanels>
void Tile(const TileArgs<Format>& args) {
  using Vector = typename Format::Vector;
  constexpr int kVectors = 2 * kPanels;
  constexpr int kSumStride = kGroupPanels * kPanelOutputs<Format>;
  Vector sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Format::Load(args.sums + r * kSumStride + v * Format::kLanes);
    }
  }
  const typename Format::Stored* panel = args.panel;
  const typename Format::Unit* staged = args.staged;
  const char* prefetch = args.prefetch;
  for (int64_t step = 0; step < args.steps; ++step) {
    if constexpr (kPanels == 1) {
      for (int line = 0; line < kStepBytes<Format>; line += kLineBytes) {
        __builtin_prefetch(prefetch + line, /*rw=*/0, /*locality=*/2);
      }
      prefetch += args.prefetch_stride;
    }
    typename Format::Cells cells[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const typename Format::Stored* from =
          panel + (v / 2) * args.panel_stride + (v % 2) * Format::kLanes;
      cells[v] = Format::LoadCells(from);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto unit = Format::Broadcast(staged + r * kStagedStride);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Format::MultiplyAdd(unit, cells[v], sums[r][v]);
      }
    }
    panel += kPanelOutputs<Format>;
    ++staged;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      Format::Store(sums[r][v], args.sums + r * kSumStride + v * Format::kLanes);
    }
  }
}

// Few rows leave registers free: such a tile walks several panels side by side, which hides the
// latency of the chains and keeps several streams from memory going.
template <class Format>
constexpr int WidePanels(int rows) {
  int panels = kGroupPanels;
  while (panels > 1 && rows * 2 * panels > Format::kMaxSums) panels /= 2;
  return panels;
}

// Runs the tile for `rows` rows over `panel_count` panels, searching the row count at compile time.
template <class Format, int kRows = Format::kMaxRows>
void RunTiles(int rows, int panel_count, TileArgs<Format> args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return RunTiles<Format, kRows - 1>(rows, panel_count, args);
  }
  constexpr int kWide = WidePanels<Format>(kRows);
  while (panel_count > 0) {
    const int done = panel_count >= kWide ? kWide : 1;
    if (done == kWide) {
      Tile<Format, kRows, kWide>(args);
    } else {
      Tile<Format, kRows, 1>(args);
    }
    args.panel += done * args.panel_stride;
    args.sums += done * kPanelOutputs<Format>;
    panel_count -= done;
  }
}

// The steps [begin, end) of an item's inputs.
struct StepBlock {
  int64_t begin;
  int64_t end;
};

// The inputs of all rows of an item in one block of steps.
template <class Format>
class StagedInputs {
 public:
  using Unit = typename Format::Unit;

  explicit StagedInputs(const LinearItem& item) : item_(item) {}

  void Stage(StepBlock block) {
    if (block.begin == staged_begin_) return;
    staged_begin_ = block.begin;
    using Input = typename Format::Input;
    const int64_t begin = block.begin * Format::kInputsPerStep;
    const int64_t steps_end = block.end * Format::kInputsPerStep;
    const int64_t end = steps_end < item_.inputs ? steps_end : item_.inputs;
    for (int64_t row = item_.row_begin; row < item_.row_end; ++row) {
      const Input* from = static_cast<const Input*>(item_.input) + row * item_.inputs + begin;
      Format::Stage(from, end - begin, units_ + (row - item_.row_begin) * kStagedStride);
    }
  }

  const Unit* Row(int64_t row) const { return units_ + row * kStagedStride; }

 private:
  const LinearItem& item_;
  int64_t staged_begin_ = -1;
  alignas(64) Unit units_[kItemRows * kStagedStride];
};

// Some neighbouring panels of an item with their sums.
template <class Format>
struct PanelGroup {
  using Stored = typename Format::Stored;

  const Stored* panels;
  int64_t panel_stride;
  int count;    // 1..kGroupPanels
  float* sums;  // [rows, kGroupPanels * kPanelOutputs]

  const Stored* Block(int panel, int64_t step) const {
    return panels + panel * panel_stride + step * kPanelOutputs<Format>;
  }
};

// One block of steps of a group for all rows of the item, in tiles of nearly equal height: panel by
// panel, each tile fetching its share of the panel that comes next.
template <class Format>
void RunBlock(const StagedInputs<Format>& inputs, int64_t rows, StepBlock block,
              const PanelGroup<Format>& group) {
  constexpr int64_t kSumStride = kGroupPanels * kPanelOutputs<Format>;
  const int64_t tiles = (rows + Format::kMaxRows - 1) / Format::kMaxRows;
  const int64_t steps = block.end - block.begin;
  const int together =
      tiles == 1 && WidePanels<Format>(static_cast<int>(rows)) > 1 ? group.count : 1;
  for (int panel = 0; panel < group.count; panel += together) {
    const auto* next =
        panel + 1 < group.count ? group.Block(panel + 1, block.begin) : group.Block(0, block.end);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles;
      const int64_t end = rows * (tile + 1) / tiles;
      RunTiles<Format>(static_cast<int>(end - begin), together,
                       {.panel = group.Block(panel, block.begin),
                        .panel_stride = group.panel_stride,
                        .staged = inputs.Row(begin),
                        .sums = group.sums + begin * kSumStride + panel * kPanelOutputs<Format>,
                        .steps = steps,
                        .prefetch = reinterpret_cast<const char*>(next) +
                                    steps * kStepBytes<Format> * tile / tiles,
                        .prefetch_stride = kStepBytes<Format> / tiles});
    }
  }
}

// Outputs [first, first + count) of the item, from the sums of their group.
inline void StoreOutputs(const LinearItem& item, int64_t first, int64_t count, const float* sums,
                         int64_t sum_stride) {
  const float* bias = item.bias == nullptr ? nullptr : item.bias + first;
  for (int64_t r = item.row_begin; r < item.row_end; ++r, sums += sum_stride) {
    float* to = item.output + r * item.output_stride + first;
    const float* residual =
        item.residual == nullptr ? nullptr : item.residual + r * item.output_stride + first;
    if (bias != nullptr && residual != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = sums[i] + bias[i] + residual[i];
    } else if (bias != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = sums[i] + bias[i];
    } else if (residual != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = sums[i] + residual[i];
    } else {
      std::memcpy(to, sums, sizeof(float) * count);
    }
  }
}

template <class Format>
void RunItem(const LinearItem& item) {
  constexpr int64_t kSumStride = kGroupPanels * kPanelOutputs<Format>;
  alignas(64) float sums[kItemRows * kSumStride];
  StagedInputs<Format> inputs(item);
  const int64_t rows = item.row_end - item.row_begin;
  const int64_t steps = (item.inputs + Format::kInputsPerStep - 1) / Format::kInputsPerStep;
  PanelGroup<Format> group = {.panels = static_cast<const typename Format::Stored*>(item.panels),
                              .panel_stride = steps * kPanelOutputs<Format>,
                              .count = kGroupPanels,
                              .sums = sums};
  for (int64_t first = 0; first < item.outputs; first += kSumStride) {
    const int64_t count = item.outputs - first < kSumStride ? item.outputs - first : kSumStride;
    group.count = static_cast<int>((count + kPanelOutputs<Format> - 1) / kPanelOutputs<Format>);
    std::memset(sums, 0, sizeof(float) * rows * kSumStride);
    for (int64_t begin = 0; begin < steps; begin += kStepsPerBlock) {
      const StepBlock block = {begin,
                               steps - begin < kStepsPerBlock ? steps : begin + kStepsPerBlock};
      inputs.Stage(block);
      RunBlock<Format>(inputs, rows, block, group);
    }
    StoreOutputs(item, first, count, sums, kSumStride);
    group.panels += group.count * group.panel_stride;
  }
}

template <class Format>
constexpr LinearKernel KernelOf(std::string_view name, DType dtype) {
  return {.name = name,
          .dtype = dtype,
          .panel_outputs = kPanelOutputs<Format>,
          .inputs_per_step = Format::kInputsPerStep,
          .run = RunItem<Format>};
}

}  // namespace
}  // namespace structattn
