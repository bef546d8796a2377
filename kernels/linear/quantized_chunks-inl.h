// What every walk through a packed panel of quant blocks (quantized_panel.h) shares. Included once
// by each linear_<isa>.cc, between the pragmas that select its instruction set; so it includes
// nothing, and everything here has internal linkage.
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
  return __builtin_bit_cast(To, from);
}

// A chunk of a panel with two vectors of outputs. Every operation rounds (nothing is contracted),
// and adding a negated minimum is subtracting it: scales and shifts are what QuantLayoutOf says,
// bit for bit.
template <QuantFormat kFormat, class Lanes>
class QuantizedChunks {
 protected:
  using Ints = typename Lanes::Ints;
  using Words = typename WordLanes<Lanes>::Words;
  using Floats = typename Lanes::Floats;

  static constexpr int kLanes = Lanes::kLanes;
  static constexpr int kOutputs = 2 * kLanes;
  static constexpr QuantBlockLayout kQuantBlock = QuantLayoutOf(kFormat);
  static constexpr QuantizedPanelLayout kAt = PanelLayoutOf(kFormat, kOutputs);

  struct Place {
    const uint8_t* block;
    const uint8_t* chunk;
  };
  static Place Find(const void* panel, int64_t chunk) {
    const uint8_t* const block =
        static_cast<const uint8_t*>(panel) + chunk / kQuantBlock.chunks * kAt.quant_block_bytes;
    return {block, block + kAt.chunks + chunk % kQuantBlock.chunks * kAt.chunk_bytes};
  }

  static Floats CanonicalNan(Floats value) {
    const Floats nan = Floats{} + __builtin_nanf("");
    return value == value ? value : nan;
  }

  static Floats ReadScale(const Place& at, int strip, int output) {
    const Floats scale = CanonicalNan(Lanes::Halves(at.block + 2 * output));
    if constexpr (!kQuantBlock.has_strip_scales()) return scale;
    const uint8_t* const bytes = at.chunk + strip * kOutputs + output;
    const Ints factor =
        kFormat == QuantFormat::kQ6_K ? Lanes::SignedBytes(bytes) : Lanes::Bytes(bytes);
    return scale * __builtin_convertvector(factor, Floats);
  }

  static Floats ReadShift(const Place& at, int output) {
    const Floats shift = CanonicalNan(Lanes::Halves(at.block + kAt.shifts + 2 * output));
    if constexpr (!kQuantBlock.has_strip_scales()) return shift;
    const Ints minimum = Lanes::Bytes(at.chunk + kAt.minima + output);
    return -(shift * __builtin_convertvector(minimum, Floats));
  }

  // Part `part` of `parts` of the lines of memory after this chunk: in one go, they would wait for
  // each other and the arithmetic for them.
  static void Prefetch(const uint8_t* chunk, int part, int parts) {
    constexpr int kAhead = 4352;  // Bytes.
    constexpr int kLines = (kAt.chunk_bytes + 63) / 64;
    for (int line = part * kLines / parts; line < (part + 1) * kLines / parts; ++line) {
      __builtin_prefetch(chunk + kAhead + 64 * line);
    }
  }

  // The bits of one input in each word; zeros where the format has no such plane.
  template <int kPlane>
  static Words ReadPlane(const uint8_t* words) {
    Words plane = {};
    if constexpr (kQuantBlock.code_bits < 8 && kQuantBlock.code_bits > kPlane) {
      std::memcpy(&plane, words, sizeof(plane));
    }
    return plane;
  }

  // The bits that are not in nibbles, of half a panel.
  struct Planes {
    Words fifth;
    Words sixth;
  };
  static Planes ReadPlanes(const uint8_t* chunk, int half) {
    return {ReadPlane<4>(chunk + kAt.fifth_bits + 4 * half * kLanes),
            ReadPlane<5>(chunk + kAt.sixth_bits + 4 * half * kLanes)};
  }
};

// Maker::Of<kFormat>() of each format.
template <class Maker>
const QuantizedKernel& QuantizedKernelFor(QuantFormat format) {
  static constexpr QuantizedKernel kKernels[] = {
      Maker::template Of<QuantFormat::kQ4_0>(), Maker::template Of<QuantFormat::kQ4_1>(),
      Maker::template Of<QuantFormat::kQ5_0>(), Maker::template Of<QuantFormat::kQ5_1>(),
      Maker::template Of<QuantFormat::kQ8_0>(), Maker::template Of<QuantFormat::kQ4_K>(),
      Maker::template Of<QuantFormat::kQ5_K>(), Maker::template Of<QuantFormat::kQ6_K>()};
  return kKernels[static_cast<int>(format)];
}

}  // namespace
}  // namespace structattn
