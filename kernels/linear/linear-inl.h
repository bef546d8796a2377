// The packed layout of weights and the way through it, as templates over an Engine that multiplies.
// Included once by each linear_<isa>.cc, between the pragmas that select its instruction set, after
// "kernels/linear/linear_kernel.h", <cstring>, <type_traits> and quantized_expand-inl.h; so it
// includes nothing, and everything here has internal linkage. Nobody else includes it.
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
// Where a kernel takes several steps at once, zeros fill the panel up to a multiple of them.
//
// Sums. Output (m, n) is one chain sum = sum + x[m][step] * w[n][step] over ascending steps, begun
// at 0, with bias and residual added at the end in this order. Which rows and panels share a tile,
// and where the steps are cut into blocks (a sum waits in memory as a float, unchanged), never
// enters it. Hence the bits of an output depend on its own row and weight alone.
//
// Speed. The inputs of an item's rows are staged into a small buffer with a skewed stride (rows
// that lie a multiple of 4 KiB apart would fight for the same cache sets), in the form that the
// engine multiplies. A block of steps of a panel stays in the caches while all row tiles of the
// item meet it, and they fetch the next one meanwhile: memory and multipliers work at once.

namespace structattn {
namespace {

// A Format has: Vector (kLanes floats), Unit (one broadcast: a float, or two 16-bit inputs), Stored
// (one cell of the layout), Input (one input in memory), kInputsPerStep, kMaxRows (of a tile),
// Load, Store, Stage(from, count, to): `count` inputs into units, and and, where it is for blocks,
// Lanes, of quantized_chunks-inl.h. An Engine has its Format; WidePanels(rows), how many panels it
// takes at once at best; and Run(rows, panels, args): adds the steps of one block to the sums of
// rows and neighbouring panels.

inline constexpr int kStepsPerBlock = 512;
inline constexpr int kStagedStride = kStepsPerBlock + 16;  // Units: 64 bytes of skew.

inline constexpr int kLineBytes = 64;

template <class Format>
inline constexpr int kPanelOutputs = 2 * Format::kLanes;

// Of one panel.
template <class Format>
inline constexpr int kStepBytes = kPanelOutputs<Format> * sizeof(typename Format::Stored);

// Where the sums of a tile begin and end. Pointers are at the tile's first row and panel.
struct TileSums {
  const float* from;  // The sums so far, rows from_stride floats apart; null: they begin at 0.
  int64_t from_stride;
  float* to;  // May be `from`.
  int64_t to_stride;
  const float* bias;      // To add at the end, or null.
  const float* residual;  // Likewise, after the bias; rows to_stride floats apart.

  // To other outputs of the same rows.
  void Move(int64_t outputs) {
    if (from != nullptr) from += outputs;
    to += outputs;
    if (bias != nullptr) bias += outputs;
    if (residual != nullptr) residual += outputs;
  }
};

template <class Format>
struct TileArgs {
  const typename Format::Stored* panel;
  int64_t panel_stride;  // Cells from panel to panel.
  const typename Format::Unit* staged;
  TileSums sums;
  int64_t steps;
  // What to fetch meanwhile, and how far to move on after each step: bytes, of no panel in use.
  const char* prefetch = nullptr;
  int64_t prefetch_stride = 0;
};

// The sum so far of the vector of outputs that begins `output` from the tile's first, in a row.
template <class Format>
typename Format::Vector BeginSum(const TileSums& at, int64_t row, int64_t output) {
  if (at.from == nullptr) return typename Format::Vector{};
  return Format::Load(at.from + row * at.from_stride + output);
}

template <class Format>
void EndSum(const TileSums& at, int64_t row, int64_t output, typename Format::Vector sum) {
  const int64_t place = row * at.to_stride + output;
  if (at.bias != nullptr) sum = sum + Format::Load(at.bias + output);
  if (at.residual != nullptr) sum = sum + Format::Load(at.residual + place);
  Format::Store(sum, at.to + place);
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
      Unit* const to = units_ + (row - item_.row_begin) * kStagedStride;
      Format::Stage(from, end - begin, to);
      const int64_t staged = (end - begin + Format::kInputsPerStep - 1) / Format::kInputsPerStep;
      for (int64_t step = staged; step < block.end - block.begin; ++step) to[step] = 0;
    }
  }

  const Unit* Row(int64_t row) const { return units_ + row * kStagedStride; }

 private:
  const LinearItem& item_;
  int64_t staged_begin_ = -1;
  alignas(64) Unit units_[kItemRows * kStagedStride];
};

// Cells of neighbouring panels over a piece of their steps.
template <class Format>
struct PanelCells {
  const typename Format::Stored* first;
  int64_t stride;    // From panel to panel, in cells.
  const char* next;  // What is read after them, by all likelihood.
  int64_t next_step_bytes;
};

// Panels that are stored as the engine multiplies them.
template <class Engine>
class StoredPanels {
 public:
  using Format = typename Engine::Format;
  using Stored = typename Format::Stored;

  StoredPanels(const LinearItem& item, int64_t steps)
      : stride_(steps * kPanelOutputs<Format>),
        first_panel_(static_cast<const Stored*>(item.panels)) {}

  static int64_t Steps(int64_t inputs) {
    return (inputs + Format::kInputsPerStep - 1) / Format::kInputsPerStep;
  }
  static constexpr int64_t StepsOfPiece() { return kStepsPerBlock; }

  void Skip(int panels) { first_panel_ += panels * stride_; }

  // Of this panel and the next ones of the macro-panel, which has `count`.
  PanelCells<Format> Read(int panel, StepBlock piece, int count) const {
    const Stored* const next = panel + 1 < count ? At(panel + 1, piece.begin) : At(0, piece.end);
    return {At(panel, piece.begin), stride_, reinterpret_cast<const char*>(next),
            kStepBytes<Format>};
  }

 private:
  const Stored* At(int panel, int64_t step) const {
    return first_panel_ + panel * stride_ + step * kPanelOutputs<Format>;
  }

  const int64_t stride_;
  const Stored* first_panel_;  // The first panel of the macro-panel.
};

// Panels of 16-bit numbers, for an engine of floats: a piece is widened once for all row tiles that
// meet it, where a tile of StoredPanels widens for itself. The sums meet the same cells.
template <class Engine, class Narrow>
class WidenedPanels {
 public:
  using Format = typename Engine::Format;

  WidenedPanels(const LinearItem& item, int64_t steps)
      : stride_(steps * kPanelOutputs<Format>),
        first_panel_(static_cast<const typename Narrow::Stored*>(item.panels)) {}

  static int64_t Steps(int64_t inputs) { return inputs; }
  static constexpr int64_t StepsOfPiece() { return kPieceSteps; }

  void Skip(int panels) { first_panel_ += panels * stride_; }

  PanelCells<Format> Read(int panel, StepBlock piece, int /*count*/) {
    const auto* const from = first_panel_ + panel * stride_ + piece.begin * kPanelOutputs<Format>;
    const int64_t cells = (piece.end - piece.begin) * kPanelOutputs<Format>;
    for (int64_t i = 0; i < cells; i += Format::kLanes) {
      Format::Store(Narrow::LoadCells(from + i), cells_ + i);
    }
    return {cells_, 0, reinterpret_cast<const char*>(from + cells), kNarrowStepBytes};
  }

 private:
  static constexpr int64_t kPieceSteps = 128;
  static constexpr int64_t kNarrowStepBytes =
      kPanelOutputs<Format> * sizeof(typename Narrow::Stored);
  static_assert(kStepsPerBlock % kPieceSteps == 0);
  static_assert(Format::kInputsPerStep == 1);

  const int64_t stride_;  // From panel to panel.
  const typename Narrow::Stored* first_panel_;
  alignas(64) float cells_[kPieceSteps * kPanelOutputs<Format>];
};

// Panels of blocks. For few rows each step is multiplied where it is expanded, in registers; else a
// piece is expanded just before it is multiplied and stays in the first-level cache. The sums meet
// the same cells, in the same order, as if these had been stored.
template <class Engine>
class QuantizedPanels {
 public:
  using Format = typename Engine::Format;

  QuantizedPanels(const LinearItem& item, int64_t /*steps*/)
      : item_(item), first_panel_(static_cast<const char*>(item.panels)) {}

  static int64_t Steps(int64_t inputs) {
    return (inputs + kChunkInputs - 1) / kChunkInputs * kChunkSteps;
  }
  static constexpr int64_t StepsOfPiece() { return kPieceSteps; }

  void Skip(int panels) { first_panel_ += panels * item_.panel_bytes; }

  PanelCells<Format> Read(int panel, StepBlock piece, int /*count*/) {
    item_.quantized->unpack(At(panel), piece.begin / kChunkSteps,
                            (piece.end - piece.begin) / kChunkSteps, cells_);
    return {cells_, 0, reinterpret_cast<const char*>(cells_), 0};  // Unpacking fetches ahead.
  }

  // A block of steps of at most kMostFewRows rows.
  void Multiply(int panel, StepBlock block, const StagedInputs<Format>& inputs, int rows,
                const TileSums& at) {
    alignas(64) float sums[kMostFewRows * kPanelOutputs<Format>];
    for (int i = 0; i < 2 * rows; ++i) {
      Format::Store(BeginSum<Format>(at, i / 2, i % 2 * Format::kLanes), sums + i * Format::kLanes);
    }
    item_.quantized->multiply[rows - 1](At(panel), block.begin / kChunkSteps,
                                        (block.end - block.begin) / kChunkSteps,
                                        {inputs.Row(0), kStagedStride, sums});
    for (int i = 0; i < 2 * rows; ++i) {
      EndSum<Format>(at, i / 2, i % 2 * Format::kLanes, Format::Load(sums + i * Format::kLanes));
    }
  }

 private:
  static_assert(Format::kInputsPerStep == 1);
  static constexpr int64_t kChunkSteps = kChunkInputs;
  static constexpr int64_t kPieceSteps = 4 * kChunkSteps;
  static_assert(kStepsPerBlock % kPieceSteps == 0);

  const char* At(int panel) const { return first_panel_ + panel * item_.panel_bytes; }

  const LinearItem& item_;
  const char* first_panel_;
  alignas(64) float cells_[kPieceSteps * kPanelOutputs<Format>];
};

// Neighbouring panels of an item, worked on side by side: kMacroPanels of them, fewer at its end.
// Sums are in registers within a piece of the steps, wait here between two, and go straight to the
// output after the last; only those of a panel with missing outputs wait here for that, too.
template <class Engine, class Panels>
class MacroPanel {
 public:
  using Format = typename Engine::Format;

  explicit MacroPanel(const LinearItem& item)
      : item_(item), steps_(Panels::Steps(item.inputs)), panels_(item, steps_) {
    Begin(0);
  }

  int64_t steps() const { return steps_; }
  bool ended() const { return first_ >= item_.outputs; }

  // Moves on by the whole of it.
  void Next() {
    panels_.Skip(Count());
    Begin(first_ + kSumStride);
  }

  // One block of steps for all rows.
  void RunBlock(const StagedInputs<Format>& inputs, StepBlock block) {
    const auto rows = static_cast<int>(item_.row_end - item_.row_begin);
    if constexpr (kQuantized) {
      if (rows <= kMostFewRows) {
        for (int panel = 0; panel < Count(); ++panel) {
          panels_.Multiply(panel, block, inputs, rows, SumsOf(0, panel, block));
        }
        return;
      }
    }
    const bool wide = !kQuantized && rows <= Format::kMaxRows && Engine::WidePanels(rows) > 1;
    for (int panel = 0, together; panel < Count(); panel += together) {
      together = wide && panel < whole_ ? whole_ - panel : 1;
      for (int64_t begin = block.begin; begin < block.end; begin += Panels::StepsOfPiece()) {
        const int64_t left = block.end - begin;
        const int64_t end = begin + (left < Panels::StepsOfPiece() ? left : Panels::StepsOfPiece());
        RunPiece(inputs, {panel, together, {begin, end}, begin - block.begin});
      }
    }
  }

  // After the last block: the outputs of a panel with missing ones.
  void StoreRest() const {
    const int64_t begin = first_ + whole_ * kPanelOutputs<Format>;
    for (int64_t row = item_.row_begin; row < item_.row_end && Count() > whole_; ++row) {
      const float* sums = sums_ + (row - item_.row_begin) * kSumStride - first_;
      const int64_t place = row * item_.output_stride;
      for (int64_t i = begin; i < item_.outputs; ++i) {
        float sum = sums[i];
        if (item_.bias != nullptr) sum += item_.bias[i];
        if (item_.residual != nullptr) sum += item_.residual[place + i];
        item_.output[place + i] = sum;
      }
    }
  }

 private:
  static constexpr int64_t kSumStride = kMacroPanels * kPanelOutputs<Format>;
  static constexpr bool kQuantized = std::is_same_v<Panels, QuantizedPanels<Engine>>;

  struct Piece {
    int panel;
    int together;
    StepBlock steps;
    int64_t staged;  // Of its first step, from the block's.
  };

  void Begin(int64_t output) {
    first_ = output;
    const int64_t left = item_.outputs - first_;
    whole_ = static_cast<int>((left < kSumStride ? left : kSumStride) / kPanelOutputs<Format>);
  }

  int Count() const {
    const int64_t outputs = first_ + whole_ * kPanelOutputs<Format>;
    return whole_ + (whole_ < kMacroPanels && outputs < item_.outputs ? 1 : 0);
  }

  // In tiles of nearly equal height, each fetching its share of the panel that comes next.
  void RunPiece(const StagedInputs<Format>& inputs, const Piece& piece) {
    const int64_t rows = item_.row_end - item_.row_begin;
    const int64_t tiles = (rows + Format::kMaxRows - 1) / Format::kMaxRows;
    const int64_t steps = piece.steps.end - piece.steps.begin;
    const PanelCells<Format> cells = panels_.Read(piece.panel, piece.steps, Count());
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles;
      const int64_t end = rows * (tile + 1) / tiles;
      Engine::Run(static_cast<int>(end - begin), piece.together,
                  {.panel = cells.first,
                   .panel_stride = cells.stride,
                   .staged = inputs.Row(begin) + piece.staged,
                   .sums = SumsOf(begin, piece.panel, piece.steps),
                   .steps = steps,
                   .prefetch = cells.next + steps * cells.next_step_bytes * tile / tiles,
                   .prefetch_stride = cells.next_step_bytes / tiles});
    }
  }

  TileSums SumsOf(int64_t row, int panel, StepBlock steps) {
    const int64_t output = panel * kPanelOutputs<Format>;
    float* const waiting = sums_ + row * kSumStride + output;
    const float* const from = steps.begin == 0 ? nullptr : waiting;
    if (steps.end < steps_ || panel == whole_) {
      return {from, kSumStride, waiting, kSumStride, nullptr, nullptr};
    }
    const int64_t place = (item_.row_begin + row) * item_.output_stride + first_ + output;
    return {.from = from,
            .from_stride = kSumStride,
            .to = item_.output + place,
            .to_stride = item_.output_stride,
            .bias = item_.bias == nullptr ? nullptr : item_.bias + first_ + output,
            .residual = item_.residual == nullptr ? nullptr : item_.residual + place};
  }

  const LinearItem& item_;
  const int64_t steps_;
  Panels panels_;
  int64_t first_ = 0;  // the macro-panel's first output in the item.
  int whole_ = 0;      // Its panels without missing outputs: all, or all but the last.
  alignas(64) float sums_[kItemRows * kSumStride];
};

template <class Engine, class Panels>
void RunItem(const LinearItem& item) {
  StagedInputs<typename Engine::Format> inputs(item);
  for (MacroPanel<Engine, Panels> macro_panel(item); !macro_panel.ended(); macro_panel.Next()) {
    for (int64_t begin = 0; begin < macro_panel.steps(); begin += kStepsPerBlock) {
      const int64_t left = macro_panel.steps() - begin;
      const StepBlock block = {begin, begin + (left < kStepsPerBlock ? left : kStepsPerBlock)};
      inputs.Stage(block);
      macro_panel.RunBlock(inputs, block);
    }
    macro_panel.StoreRest();
  }
}

// One or two row tiles widen a cell once or twice in any case.
template <class Engine, class FloatEngine>
void RunStored(const LinearItem& item) {
  if constexpr (!std::is_same_v<Engine, FloatEngine>) {
    using Narrow = typename Engine::Format;
    if (item.row_end - item.row_begin > 2 * Narrow::kMaxRows) {
      return RunItem<FloatEngine, WidenedPanels<FloatEngine, Narrow>>(item);
    }
  }
  RunItem<Engine, StoredPanels<Engine>>(item);
}

// `FloatEngine` has the same inputs and panels, and cells of floats. Blocks and bfloat16 inputs are
// for the kernels of quantized_dot-inl.h.
template <class Engine, class FloatEngine = Engine>
constexpr LinearKernel KernelOf(std::string_view name, DType dtype) {
  using Format = typename Engine::Format;
  LinearKernel kernel = {.name = name,
                         .dtype = dtype,
                         .panel_outputs = kPanelOutputs<Format>,
                         .inputs_per_step = Format::kInputsPerStep,
                         .dot_order = false,
                         .steps_multiple = 1,
                         .item_rows = kItemRows,
                         .run = RunStored<Engine, FloatEngine>,
                         .run_quantized = nullptr,
                         .find_quantized = nullptr};
  if constexpr (!std::is_same_v<typename Format::Input, Bfloat16>) {
    kernel.run_quantized = RunItem<FloatEngine, QuantizedPanels<FloatEngine>>;
    kernel.find_quantized = QuantizedKernelFor<ExpandingKernels<typename FloatEngine::Format>>;
  }
  return kernel;
}

}  // namespace
}  // namespace structattn
