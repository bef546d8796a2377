// Expands panels of blocks (block_panel.h) to the cells that an engine multiplies: floats, or pairs
// of bfloat16. Included once by each linear_<isa>.cc before linear-inl.h, under its conditions.
//
// A value is what LayoutOf says, bit for bit the float that GGML's reference gives: every operation
// rounds (nothing is contracted), and adding a negated minimum is subtracting it.
//
// Vectors are GCC's and Clang's own; what they cannot say well is in a Lanes class of the
// instruction set: kLanes, the vectors Ints and Floats of so many, and three loads of them from
// memory without alignment: Bytes (of 0 .. 255) and SignedBytes as Ints, Halves as Floats.

namespace structattn {
namespace {

template <class Lanes>
struct WordLanes {
  typedef uint32_t Words __attribute__((vector_size(4 * Lanes::kLanes)));
};

template <class To, class From>
inline To BitCastLanes(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return reinterpret_cast<To>(from);
}

// How two inputs' values become what an engine multiplies: a step of floats each, or one of pairs.
template <class Lanes>
struct FloatCellsOf {
  using Floats = typename Lanes::Floats;
  using Cell = float;
  using Cells = Floats;
  static constexpr int kSteps = 2;

  static void Make(Floats even, Floats odd, Cells (&steps)[kSteps]) {
    steps[0] = even;
    steps[1] = odd;
  }
};

template <class Lanes>
struct PairCellsOf {
  using Words = typename WordLanes<Lanes>::Words;
  using Floats = typename Lanes::Floats;
  using Cell = uint32_t;
  using Cells = Words;
  static constexpr int kSteps = 1;

  // The nearest bfloat16 in the upper half, ties to even. No NaN here has all bits set
  // (CanonicalNan), so none is carried over to a number.
  static Words Round(Floats value) {
    const Words bits = BitCastLanes<Words>(value);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  }
  static void Make(Floats even, Floats odd, Cells (&steps)[kSteps]) {
    steps[0] = (Round(even) >> 16) | (Round(odd) & 0xffff0000u);
  }
};

// Chunks of panels with two vectors of outputs, expanded in registers; what becomes of a step is
// the caller's: take(step, half of the panel, cells).
template <BlockFormat kFormat, class Lanes, class CellsOf>
class ChunkExpander {
 public:
  static constexpr int kStepsOfChunk = kChunkInputs / 2 * CellsOf::kSteps;

  // Chunks [first, first + count) of a panel, the steps of each half in ascending order.
  template <class Take>
  static void Expand(const void* panel, int64_t first, int64_t count, const Take& take) {
    for (int64_t chunk = first; chunk < first + count; ++chunk) {
      const uint8_t* const block =
          static_cast<const uint8_t*>(panel) + chunk / kBlock.chunks * kAt.block_bytes;
      const uint8_t* const at = block + kAt.chunks + chunk % kBlock.chunks * kAt.chunk_bytes;
      const int64_t step = (chunk - first) * kStepsOfChunk;
      ExpandChunk(block, at, step, take);
    }
  }

 private:
  using Ints = typename Lanes::Ints;
  using Words = typename WordLanes<Lanes>::Words;
  using Floats = typename Lanes::Floats;

  static constexpr int kOutputs = 2 * Lanes::kLanes;
  static constexpr int kPairs = kChunkInputs / 2;
  static constexpr BlockLayout kBlock = LayoutOf(kFormat);
  static constexpr BlockPanelLayout kAt = PanelLayoutOf(kFormat, kOutputs);
  static constexpr int kPairsOfGroup = kPairs / kBlock.groups_per_chunk;
  static constexpr int kAhead = 4352;  // Bytes.

  static Floats CanonicalNan(Floats value) {
    const Floats nan = Floats{} + __builtin_nanf("");
    return value == value ? value : nan;
  }

  static Floats ReadScale(const uint8_t* block, const uint8_t* chunk, int group, int output) {
    const Floats scale = CanonicalNan(Lanes::Halves(block + 2 * output));
    if constexpr (!kBlock.has_group_scales()) return scale;
    const uint8_t* const bytes = chunk + group * kOutputs + output;
    const Ints factor =
        kFormat == BlockFormat::kQ6_K ? Lanes::SignedBytes(bytes) : Lanes::Bytes(bytes);
    return scale * __builtin_convertvector(factor, Floats);
  }

  static Floats ReadShift(const uint8_t* block, const uint8_t* chunk, int output) {
    const Floats shift = CanonicalNan(Lanes::Halves(block + kAt.shifts + 2 * output));
    if constexpr (!kBlock.has_group_scales()) return shift;
    const Ints minimum = Lanes::Bytes(chunk + kAt.minima + output);
    return -(shift * __builtin_convertvector(minimum, Floats));
  }

  // The lines of memory after this chunk, evenly between the steps: in one go, they would wait for
  // each other and the arithmetic for them.
  static void Prefetch(const uint8_t* chunk, int pair) {
    constexpr int kLines = (kAt.chunk_bytes + 63) / 64;
    for (int line = pair * kLines / kPairs; line < (pair + 1) * kLines / kPairs; ++line) {
      __builtin_prefetch(chunk + kAhead + 64 * line);
    }
  }

  // The bits of one input in each word; zeros where the format has no such plane.
  template <int kPlane>
  static Words ReadPlane(const uint8_t* words) {
    Words plane = {};
    if constexpr (kBlock.code_bits < 8 && kBlock.code_bits > kPlane) {
      std::memcpy(&plane, words, sizeof(plane));
    }
    return plane;
  }

  // Both halves of the panel in turns: two chains of sums hide each other's latency.
  template <class Take>
  static void ExpandChunk(const uint8_t* block, const uint8_t* chunk, int64_t first_step,
                          const Take& take) {
    Floats shift[2] = {};
    Words fifth[2];
    Words sixth[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int output = half * Lanes::kLanes;
      if constexpr (kBlock.has_shift) shift[half] = ReadShift(block, chunk, output);
      fifth[half] = ReadPlane<4>(chunk + kAt.fifth_bits + 4 * output);
      sixth[half] = ReadPlane<5>(chunk + kAt.sixth_bits + 4 * output);
    }
#pragma GCC unroll 2
    for (int group = 0; group < kBlock.groups_per_chunk; ++group) {
      const Floats scale[2] = {ReadScale(block, chunk, group, 0),
                               ReadScale(block, chunk, group, Lanes::kLanes)};
// Sanitized, sixteen of these take a compiler minutes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#pragma GCC unroll 1
#else
#pragma GCC unroll 16
#endif
      for (int i = 0; i < kPairsOfGroup; ++i) {
        const int pair = group * kPairsOfGroup + i;
        Prefetch(chunk, pair);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          Ints even;
          Ints odd;
          ReadCodes(chunk + kAt.codes + half * Lanes::kLanes, pair, even, odd);
          AddBits<4>(fifth[half], 2 * pair, even, odd);
          AddBits<5>(sixth[half], 2 * pair, even, odd);
          typename CellsOf::Cells steps[CellsOf::kSteps];
          CellsOf::Make(Value(even, scale[half], shift[half]), Value(odd, scale[half], shift[half]),
                        steps);
#pragma GCC unroll 2
          for (int step = 0; step < CellsOf::kSteps; ++step) {
            take(first_step + pair * CellsOf::kSteps + step, half, steps[step]);
          }
        }
      }
    }
  }

  static void ReadCodes(const uint8_t* codes, int pair, Ints& even, Ints& odd) {
    if constexpr (kBlock.code_bits == 8) {
      even = Lanes::SignedBytes(codes + 2 * pair * kOutputs);
      odd = Lanes::SignedBytes(codes + (2 * pair + 1) * kOutputs);
    } else {
      const Ints both = Lanes::Bytes(codes + pair * kOutputs);
      even = both & 15;
      odd = both >> 4;
    }
  }

  // Bit `input` of each word, and the next one, become bit kPlace of the codes that have it.
  template <int kPlace>
  static void AddBits(Words plane, int input, Ints& even, Ints& odd) {
    if constexpr (kPlace < kBlock.code_bits && kBlock.code_bits < 8) {
      even |= BitCastLanes<Ints>(MoveBit<kPlace>(plane, input));
      odd |= BitCastLanes<Ints>(MoveBit<kPlace>(plane, input + 1));
    }
  }
  template <int kPlace>
  static Words MoveBit(Words plane, int from) {
    const Words moved = from > kPlace ? plane >> (from - kPlace) : plane << (kPlace - from);
    return moved & (1u << kPlace);
  }

  static Floats Value(Ints code, Floats scale, Floats shift) {
    if constexpr (kBlock.offset != 0) code -= kBlock.offset;
    const Floats value = scale * __builtin_convertvector(code, Floats);
    if constexpr (kBlock.has_shift) return value + shift;
    return value;
  }
};

// The UnpackChunks of a format.
template <BlockFormat kFormat, class Lanes, class CellsOf>
void UnpackTo(const void* panel, int64_t first, int64_t count, void* cells) {
  auto* const to = static_cast<typename CellsOf::Cell*>(cells);
  const auto store = [to](int64_t step, int half, const auto& values)
      __attribute__((always_inline)) {
    std::memcpy(to + (2 * step + half) * Lanes::kLanes, &values, sizeof(values));
  };
  ChunkExpander<kFormat, Lanes, CellsOf>::Expand(panel, first, count, store);
}

// The MultiplyChunks of a format: no step is stored, each is multiplied where it was expanded.
template <BlockFormat kFormat, class Format, class CellsOf, int kRows>
void MultiplyRows(const void* panel, int64_t first, int64_t count, const FewRows& rows) {
  using Vector = typename Format::Vector;
  const auto* const staged = static_cast<const typename Format::Unit*>(rows.staged);
  Vector sums[2][kRows];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kRows; ++i) {
    sums[i % 2][i / 2] = Format::Load(rows.sums + i * Format::kLanes);
  }
  const auto multiply = [&](int64_t step, int half, const auto& values)
      __attribute__((always_inline)) {
    const auto cells = BitCastLanes<typename Format::Cells>(values);
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      const auto unit = Format::Broadcast(staged + row * rows.staged_stride + step);
      sums[half][row] = Format::MultiplyAdd(unit, cells, sums[half][row]);
    }
  };
  ChunkExpander<kFormat, typename Format::Lanes, CellsOf>::Expand(panel, first, count, multiply);
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kRows; ++i) {
    Format::Store(sums[i % 2][i / 2], rows.sums + i * Format::kLanes);
  }
}

// Without few rows of their own where the sums are not those of Format::MultiplyAdd.
template <BlockFormat kFormat, class Format, class CellsOf, bool kFewRows>
constexpr BlockKernel BlockKernelOf() {
  BlockKernel kernel = {.unpack = UnpackTo<kFormat, typename Format::Lanes, CellsOf>,
                        .multiply = {}};
  if constexpr (kFewRows) {
    kernel.multiply[0] = MultiplyRows<kFormat, Format, CellsOf, 1>;
    kernel.multiply[1] = MultiplyRows<kFormat, Format, CellsOf, 2>;
    kernel.multiply[2] = MultiplyRows<kFormat, Format, CellsOf, 3>;
    kernel.multiply[3] = MultiplyRows<kFormat, Format, CellsOf, 4>;
  }
  return kernel;
}

template <class Format, class CellsOf, bool kFewRows>
const BlockKernel& FindBlockKernel(BlockFormat format) {
  static constexpr BlockKernel kKernels[] = {
      BlockKernelOf<BlockFormat::kQ4_0, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ4_1, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ5_0, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ5_1, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ8_0, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ4_K, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ5_K, Format, CellsOf, kFewRows>(),
      BlockKernelOf<BlockFormat::kQ6_K, Format, CellsOf, kFewRows>()};
  return kKernels[static_cast<int>(format)];
}

}  // namespace
}  // namespace structattn
