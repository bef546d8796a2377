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
// where the format says so. An item holds a block of steps of its panels in L2 for all its rows.

namespace structattn {
namespace {

// A Format has: Vector (kLanes floats), Unit (one broadcast: a float, or two 16-bit inputs), Stored
// (one cell of the layout), Input (one input in memory), kInputsPerStep, kMaxRows (of a tile),
// kMaxSums (vectors of sums in a tile of few rows over many panels), Zero, Load, Store,
// MultiplyAdd(unit, cell, sum), and Stage(from, count, to): `count` inputs into units.

inline constexpr int kStepsPerBlock = 512;
inline constexpr int kStagedStride = kStepsPerBlock + 16;  // Units: 64 bytes of skew.

template <class Format>
inline constexpr int kPanelOutputs = 2 * Format::kLanes;

template <class Format>
struct TileArgs {
  const typename Format::Stored* panel;
  int64_t panel_stride;  // Cells from panel to panel.
  const typename Format::Unit* staged;
  float* sums;  // [kRows, kItemPanels * kPanelOutputs]
  int64_t steps;
};

// Adds the steps of one block to the sums of kRows rows and kPanels panels.
template <class Format, int kRows, int kPanels>
void Tile(const TileArgs<Format>& args) {
  using Vector = typename Format::Vector;
  constexpr int kVectors = 2 * kPanels;
  constexpr int kSumStride = kItemPanels * kPanelOutputs<Format>;
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
  for (int64_t step = 0; step < args.steps; ++step) {
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
  int panels = kItemPanels;
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

// One block of steps for all rows of the item, in tiles of nearly equal height.
template <class Format>
void RunBlock(const LinearItem& item, int64_t step_begin, int64_t step_end, float* sums) {
  using Input = typename Format::Input;
  constexpr int64_t kSumStride = kItemPanels * kPanelOutputs<Format>;
  alignas(64) typename Format::Unit staged[Format::kMaxRows * kStagedStride];
  const int64_t all_steps = (item.inputs + Format::kInputsPerStep - 1) / Format::kInputsPerStep;
  const int64_t input_begin = step_begin * Format::kInputsPerStep;
  const int64_t input_end = step_end == all_steps ? item.inputs : step_end * Format::kInputsPerStep;
  TileArgs<Format> args = {.panel = static_cast<const typename Format::Stored*>(item.panels) +
                                    step_begin * kPanelOutputs<Format>,
                           .panel_stride = all_steps * kPanelOutputs<Format>,
                           .staged = staged,
                           .sums = sums,
                           .steps = step_end - step_begin};
  const int panel_count =
      static_cast<int>((item.outputs + kPanelOutputs<Format> - 1) / kPanelOutputs<Format>);
  const int64_t rows = item.row_end - item.row_begin;
  const int64_t tiles = (rows + Format::kMaxRows - 1) / Format::kMaxRows;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t begin = rows * tile / tiles;
    const int64_t end = rows * (tile + 1) / tiles;
    for (int64_t r = begin; r < end; ++r) {
      const Input* from =
          static_cast<const Input*>(item.input) + (item.row_begin + r) * item.inputs + input_begin;
      Format::Stage(from, input_end - input_begin, staged + (r - begin) * kStagedStride);
    }
    args.sums = sums + begin * kSumStride;
    RunTiles<Format>(static_cast<int>(end - begin), panel_count, args);
  }
}

template <class Format>
void RunItem(const LinearItem& item) {
  constexpr int64_t kSumStride = kItemPanels * kPanelOutputs<Format>;
  alignas(64) float sums[kItemRows * kSumStride];
  const int64_t rows = item.row_end - item.row_begin;
  std::memset(sums, 0, sizeof(float) * rows * kSumStride);
  const int64_t steps = (item.inputs + Format::kInputsPerStep - 1) / Format::kInputsPerStep;
  for (int64_t begin = 0; begin < steps; begin += kStepsPerBlock) {
    const int64_t end = steps - begin < kStepsPerBlock ? steps : begin + kStepsPerBlock;
    RunBlock<Format>(item, begin, end, sums);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = sums + r * kSumStride;
    const int64_t row = (item.row_begin + r) * item.output_stride;
    float* to = item.output + row;
    const int64_t count = item.outputs;
    if (item.bias != nullptr && item.residual != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i] + item.bias[i] + item.residual[row + i];
    } else if (item.bias != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i] + item.bias[i];
    } else if (item.residual != nullptr) {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i] + item.residual[row + i];
    } else {
      std::memcpy(to, from, sizeof(float) * count);
    }
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
