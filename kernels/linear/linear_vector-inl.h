// The Engine of linear-inl.h in vector registers: a tile keeps rows x outputs sums in them, and per
// step loads the 2 vectors of a panel once and broadcasts an input of each row.
// Included after linear-inl.h, under the same conditions. Its Format also has: Cells, Broadcast,
// LoadCells, MultiplyAdd(unit, cells, sum), and kMaxSums: sums in a tile of few rows over many
// panels.

namespace structattn {
namespace {

inline constexpr int kMostWidePanels = 4;

// Adds the steps of one block to the sums of kRows rows and kPanels panels. Fetches ahead when it
// works on a single panel.
template <class Format, int kRows, int kPanels>
void Tile(const TileArgs<Format>& args) {
  constexpr int kVectors = 2 * kPanels;
  typename Format::Vector sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const int64_t output = v * Format::kLanes;
      __builtin_prefetch(args.sums.to + r * args.sums.to_stride + output, /*rw=*/1);
      sums[r][v] = BeginSum<Format>(args.sums, r, output);
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
    for (int v = 0; v < kVectors; ++v) EndSum<Format>(args.sums, r, v * Format::kLanes, sums[r][v]);
  }
}

// Few rows leave registers free: such a tile walks several panels side by side, which hides the
// latency of the chains and keeps several streams from memory going.
template <class Format>
constexpr int WidePanelsOf(int rows) {
  int panels = kMostWidePanels;
  while (panels > 1 && rows * 2 * panels > Format::kMaxSums) panels /= 2;
  return panels;
}

// Runs the tile for `rows` rows over `panel_count` panels, searching the row count at compile time.
template <class Format, int kRows = Format::kMaxRows>
void RunTiles(int rows, int panel_count, TileArgs<Format> args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return RunTiles<Format, kRows - 1>(rows, panel_count, args);
  }
  constexpr int kWide = WidePanelsOf<Format>(kRows);
  while (panel_count > 0) {
    const int done = panel_count >= kWide ? kWide : 1;
    if (done == kWide) {
      Tile<Format, kRows, kWide>(args);
    } else {
      Tile<Format, kRows, 1>(args);
    }
    args.panel += done * args.panel_stride;
    args.sums.Move(done * kPanelOutputs<Format>);
    panel_count -= done;
  }
}

// A format of float sums over cells that are floats already, whatever its inputs are.
template <class F>
struct FloatCells : F {
  using Stored = float;
  static typename F::Cells LoadCells(const float* from) { return F::Load(from); }
};

template <class F>
struct VectorEngine {
  using Format = F;
  static constexpr int WidePanels(int rows) { return WidePanelsOf<Format>(rows); }
  static void Run(int rows, int panels, const TileArgs<Format>& args) {
    RunTiles<Format>(rows, panels, args);
  }
};

}  // namespace
}  // namespace structattn
