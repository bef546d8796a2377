// Expands panel of quant blocks (quantized_panel.h) to the floats that an engine multiplies.
// Included after quantized_chunks-inl.h and before linear-inl.h, under their conditions.
//
// A value is what QuantLayoutOf says, bit for bit the float that GGML's reference gives.

namespace structattn {
namespace {

// Chunks expanded in registers; what becomes of a step is the caller's: take(step, half of the
// panel, floats).
template <QuantFormat kFormat, class Lanes>
class ChunkExpander : QuantizedChunks<kFormat, Lanes> {
  using Base = QuantizedChunks<kFormat, Lanes>;
  using Ints = typename Base::Ints;
  using Words = typename Base::Words;
  using Floats = typename Base::Floats;
  using Base::kAt;
  using Base::kLanes;
  using Base::kOutputs;
  using Base::kQuantBlock;
  static constexpr int kPairs = kChunkInputs / 2;
  static constexpr int kPairsOfStrip = kPairs / kQuantBlock.strips_per_chunk;

 public:
  // Chunks [first, first + count) of a panel, the steps of each half in ascending order.
  template <class Take>
  static void Expand(const void* panel, int64_t first, int64_t count, const Take& take) {
    for (int64_t i = 0; i < count; ++i) {
      ExpandChunk(Base::Find(panel, first + i), i * kChunkInputs, take);
    }
  }

 private:
  // Both halves of the panel in turns: two chains of sums hide each other's latency.
  template <class Take>
  static void ExpandChunk(const typename Base::Place& at, int64_t first_step, const Take& take) {
    const uint8_t* const chunk = at.chunk;
    Floats shift[2] = {};
    const typename Base::Planes planes[2] = {Base::ReadPlanes(chunk, 0),
                                             Base::ReadPlanes(chunk, 1)};
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      if constexpr (kQuantBlock.has_shift) shift[half] = Base::ReadShift(at, half * kLanes);
    }
#pragma GCC unroll 2
    for (int strip = 0; strip < kQuantBlock.strips_per_chunk; ++strip) {
      const Floats scale[2] = {Base::ReadScale(at, strip, 0), Base::ReadScale(at, strip, kLanes)};
// Sanitized, sixteen of these take a compiler minutes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#pragma GCC unroll 1
#else
#pragma GCC unroll 16
#endif
      for (int i = 0; i < kPairsOfStrip; ++i) {
        const int pair = strip * kPairsOfStrip + i;
        Base::Prefetch(chunk, pair, kPairs);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          Ints even;
          Ints odd;
          ReadCodes(chunk + kAt.codes + half * kLanes, pair, even, odd);
          AddBits<4>(planes[half].fifth, 2 * pair, even, odd);
          AddBits<5>(planes[half].sixth, 2 * pair, even, odd);
          take(first_step + 2 * pair, half, Value(even, scale[half], shift[half]));
          take(first_step + 2 * pair + 1, half, Value(odd, scale[half], shift[half]));
        }
      }
    }
  }

  static void ReadCodes(const uint8_t* codes, int pair, Ints& even, Ints& odd) {
    if constexpr (kQuantBlock.code_bits == 8) {
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
    if constexpr (kPlace < kQuantBlock.code_bits && kQuantBlock.code_bits < 8) {
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
    if constexpr (kQuantBlock.offset != 0) code -= kQuantBlock.offset;
    const Floats value = scale * __builtin_convertvector(code, Floats);
    if constexpr (kQuantBlock.has_shift) return value + shift;
    return value;
  }
};

// The UnpackChunks of a format.
template <QuantFormat kFormat, class Lanes>
void UnpackTo(const void* panel, int64_t first, int64_t count, float* cells) {
  const auto store = [cells](int64_t step, int half, const auto& values)
      __attribute__((always_inline)) {
    std::memcpy(cells + (2 * step + half) * Lanes::kLanes, &values, sizeof(values));
  };
  ChunkExpander<kFormat, Lanes>::Expand(panel, first, count, store);
}

// The MultiplyChunks of a format: no step is stored, each is multiplied where it was expanded.
template <QuantFormat kFormat, class Format, int kRows>
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
  ChunkExpander<kFormat, typename Format::Lanes>::Expand(panel, first, count, multiply);
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kRows; ++i) {
    Format::Store(sums[i % 2][i / 2], rows.sums + i * Format::kLanes);
  }
}

// For QuantizedKernelFor.
template <class Format>
struct ExpandingKernels {
  template <QuantFormat kFormat>
  static constexpr QuantizedKernel Of() {
    return {.unpack = UnpackTo<kFormat, typename Format::Lanes>,
            .multiply = {MultiplyRows<kFormat, Format, 1>, MultiplyRows<kFormat, Format, 2>,
                         MultiplyRows<kFormat, Format, 3>, MultiplyRows<kFormat, Format, 4>}};
  }
};

}  // namespace
}  // namespace structattn
