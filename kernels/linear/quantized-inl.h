// The way through quantized panels (quantized_panel.h): where a chunk lies, its scales and shifts,
// and the expansion of its codes to the floats that the micro-kernel multiplies. Include it as
// linear-inl.h says.
//
// Vectors are GCC's and Clang's own, with what these cannot say well loaded by Highway. Every
// operation rounds (nothing is contracted), and adding a negated minimum is subtracting it: values
// are what QuantBlockLayout says, bit for bit the floats that GGML's reference gives.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_LINEAR_QUANTIZED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_LINEAR_QUANTIZED_INL_H_
#undef STRUCTATTN_KERNELS_LINEAR_QUANTIZED_INL_H_
#else
#define STRUCTATTN_KERNELS_LINEAR_QUANTIZED_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <iterator>
#include <utility>

#include "hwy/highway.h"
#include "kernels/linear/linear-inl.h"
#include "kernels/linear/quantized_panel.h"

namespace structattn::linear {
namespace HWY_NAMESPACE {
namespace {

typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef float Floats __attribute__((vector_size(4 * kLanes)));

template <QuantFormat kFormat>
inline constexpr QuantBlockLayout kLayout = QuantLayoutOf(kFormat);
template <QuantFormat kFormat>
inline constexpr QuantizedPanelLayout kAt = PanelLayoutOf(kFormat, kPanelOutputs);

template <class To, class From>
inline To BitCastLanes(From from) {
  return __builtin_bit_cast(To, from);
}

inline Ints LoadBytes(const uint8_t* from) {
  const hn::Rebind<uint8_t, FloatTag> bytes;
  return BitCastLanes<Ints>(hn::PromoteTo(hn::RebindToSigned<FloatTag>(), hn::LoadU(bytes, from)));
}
inline Ints LoadSignedBytes(const uint8_t* from) {
  const hn::Rebind<int8_t, FloatTag> bytes;
  const auto* const at = reinterpret_cast<const int8_t*>(from);
  return BitCastLanes<Ints>(hn::PromoteTo(hn::RebindToSigned<FloatTag>(), hn::LoadU(bytes, at)));
}

// Halves as floats, every NaN the same one.
inline Floats LoadHalvesOneNan(const uint8_t* from) {
  const auto value = BitCastLanes<Floats>(LoadHalves(from));
  const Floats nan = Floats{} + __builtin_nanf("");
  return value == value ? value : nan;
}

// A chunk of a panel and the quant block that it is in.
struct ChunkPlace {
  const uint8_t* quant_block;
  const uint8_t* chunk;
};

template <QuantFormat kFormat>
ChunkPlace FindChunk(const void* panel, int64_t chunk) {
  const uint8_t* const quant_block =
      static_cast<const uint8_t*>(panel) +
      chunk / kLayout<kFormat>.chunks * kAt<kFormat>.quant_block_bytes;
  return {quant_block, quant_block + kAt<kFormat>.chunks +
                           chunk % kLayout<kFormat>.chunks * kAt<kFormat>.chunk_bytes};
}

template <QuantFormat kFormat>
Floats ReadScale(const ChunkPlace& at, int strip, int output) {
  const Floats scale = LoadHalvesOneNan(at.quant_block + 2 * output);
  if constexpr (!kLayout<kFormat>.has_strip_scales()) return scale;
  const uint8_t* const bytes = at.chunk + strip * kPanelOutputs + output;
  const Ints factor = kFormat == QuantFormat::kQ6_K ? LoadSignedBytes(bytes) : LoadBytes(bytes);
  return scale * __builtin_convertvector(factor, Floats);
}

template <QuantFormat kFormat>
Floats ReadShift(const ChunkPlace& at, int output) {
  const Floats shift = LoadHalvesOneNan(at.quant_block + kAt<kFormat>.shifts + 2 * output);
  if constexpr (!kLayout<kFormat>.has_strip_scales()) return shift;
  const Ints minimum = LoadBytes(at.chunk + kAt<kFormat>.minima + output);
  return -(shift * __builtin_convertvector(minimum, Floats));
}

// Share `share` of `shares` of the lines of memory after this chunk: in one go, they would wait for
// each other and the arithmetic for them.
template <QuantFormat kFormat>
void PrefetchChunk(const uint8_t* chunk, int share, int shares) {
  constexpr int kAhead = 4352;  // Bytes.
  constexpr int kLines = (kAt<kFormat>.chunk_bytes + 63) / 64;
  for (int line = share * kLines / shares; line < (share + 1) * kLines / shares; ++line) {
    __builtin_prefetch(chunk + kAhead + 64 * line);
  }
}

// Bit kBit of the codes of half a panel, one input in each bit of a word; zeros where the format
// has no such bits outside of nibbles.
template <QuantFormat kFormat, int kBit>
Words ReadBits(const uint8_t* chunk, int half) {
  Words bits = {};
  if constexpr (kLayout<kFormat>.code_bits < 8 && kLayout<kFormat>.code_bits > kBit) {
    const int64_t at = kBit == 4 ? kAt<kFormat>.fifth_bits : kAt<kFormat>.sixth_bits;
    std::memcpy(&bits, chunk + at + 4 * half * kLanes, sizeof(bits));
  }
  return bits;
}

// What `make`, a template over a format without state, returns for this one.
template <class Make>
auto MakeFor(QuantFormat format, const Make&) {
  return [format]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    using Made = decltype(Make{}.template operator()<kQuantFormats[0]>());
    static constexpr Made kMade[] = {Make{}.template operator()<kQuantFormats[kIndex]>()...};
    return &kMade[static_cast<int>(format)];
  }
  (std::make_index_sequence<std::size(kQuantFormats)>());
}

inline constexpr int kPairs = kChunkInputs / 2;

template <QuantFormat kFormat>
void ReadCodes(const uint8_t* codes, int pair, Ints& even, Ints& odd) {
  if constexpr (kLayout<kFormat>.code_bits == 8) {
    even = LoadSignedBytes(codes + 2 * pair * kPanelOutputs);
    odd = LoadSignedBytes(codes + (2 * pair + 1) * kPanelOutputs);
  } else {
    const Ints both = LoadBytes(codes + pair * kPanelOutputs);
    even = both & 15;
    odd = both >> 4;
  }
}

template <int kBit>
Words MoveBit(Words bits, int from) {
  const Words moved = from > kBit ? bits >> (from - kBit) : bits << (kBit - from);
  return moved & (1u << kBit);
}

// Bit `input` of each word, and the next one, become bit kBit of the codes that have it.
template <QuantFormat kFormat, int kBit>
void AddBits(Words bits, int input, Ints& even, Ints& odd) {
  if constexpr (kBit < kLayout<kFormat>.code_bits && kLayout<kFormat>.code_bits < 8) {
    even |= BitCastLanes<Ints>(MoveBit<kBit>(bits, input));
    odd |= BitCastLanes<Ints>(MoveBit<kBit>(bits, input + 1));
  }
}

template <QuantFormat kFormat>
Floats ValueOf(Ints code, Floats scale, Floats shift) {
  if constexpr (kLayout<kFormat>.offset != 0) code -= kLayout<kFormat>.offset;
  const Floats value = scale * __builtin_convertvector(code, Floats);
  if constexpr (kLayout<kFormat>.has_shift) return value + shift;
  return value;
}

// A chunk in registers, units in ascending order; what becomes of one is the caller's: take(unit,
// half of the panel, floats). Both halves of the panel in turns: two chains of sums hide each
// other's latency.
template <QuantFormat kFormat, class Take>
void ExpandChunk(const ChunkPlace& at, int64_t first_unit, const Take& take) {
  constexpr QuantBlockLayout kLayoutHere = kLayout<kFormat>;
  constexpr int kPairsOfStrip = kPairs / kLayoutHere.strips_per_chunk;
  const uint8_t* const chunk = at.chunk;
  Floats shift[2] = {};
  const Words fifth[2] = {ReadBits<kFormat, 4>(chunk, 0), ReadBits<kFormat, 4>(chunk, 1)};
  const Words sixth[2] = {ReadBits<kFormat, 5>(chunk, 0), ReadBits<kFormat, 5>(chunk, 1)};
  if constexpr (kLayoutHere.has_shift) {
    shift[0] = ReadShift<kFormat>(at, 0);
    shift[1] = ReadShift<kFormat>(at, kLanes);
  }
#pragma GCC unroll 2
  for (int strip = 0; strip < kLayoutHere.strips_per_chunk; ++strip) {
    const Floats scale[2] = {ReadScale<kFormat>(at, strip, 0),
                             ReadScale<kFormat>(at, strip, kLanes)};
// Sanitized, sixteen of these take a compiler minutes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#pragma GCC unroll 1
#else
#pragma GCC unroll 16
#endif
    for (int i = 0; i < kPairsOfStrip; ++i) {
      const int pair = strip * kPairsOfStrip + i;
      PrefetchChunk<kFormat>(chunk, pair, kPairs);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        Ints even;
        Ints odd;
        ReadCodes<kFormat>(chunk + kAt<kFormat>.codes + half * kLanes, pair, even, odd);
        AddBits<kFormat, 4>(fifth[half], 2 * pair, even, odd);
        AddBits<kFormat, 5>(sixth[half], 2 * pair, even, odd);
        take(first_unit + 2 * pair, half, ValueOf<kFormat>(even, scale[half], shift[half]));
        take(first_unit + 2 * pair + 1, half, ValueOf<kFormat>(odd, scale[half], shift[half]));
      }
    }
  }
}

template <QuantFormat kFormat, class Take>
void ExpandUnits(const void* panel, UnitRange units, const Take& take) {
  for (int64_t unit = units.begin; unit < units.end; unit += kChunkInputs) {
    ExpandChunk<kFormat>(FindChunk<kFormat>(panel, unit / kChunkInputs), unit - units.begin, take);
  }
}

// Expander::expand of a format.
template <QuantFormat kFormat>
void ExpandTo(const void* panel, UnitRange units, float* to) {
  const auto store = [to](int64_t unit, int half, const auto& values)
      __attribute__((always_inline)) {
    std::memcpy(to + (2 * unit + half) * kLanes, &values, sizeof(values));
  };
  ExpandUnits<kFormat>(panel, units, store);
}

// Expander::multiply of a format: no unit is stored, each is multiplied where it was expanded.
template <QuantFormat kFormat, int kRows = Expander::kMostFewRows>
void MultiplyFewRows(int rows, const void* panel, UnitRange units, const float* staged,
                     float* sums_at) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return MultiplyFewRows<kFormat, kRows - 1>(rows, panel, units, staged, sums_at);
    }
  }
  FloatVector sums[2][kRows];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kRows; ++i) {
    sums[i % 2][i / 2] = hn::LoadU(FloatTag(), sums_at + i * kLanes);
  }
  const auto multiply = [&](int64_t unit, int half, const auto& values)
      __attribute__((always_inline)) {
    const auto weights = BitCastLanes<FloatVector>(values);
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      const auto input = hn::Set(FloatTag(), staged[row * kStagedStride + unit]);
      sums[half][row] = hn::MulAdd(input, weights, sums[half][row]);
    }
  };
  ExpandUnits<kFormat>(panel, units, multiply);
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kRows; ++i) {
    hn::StoreU(sums[i % 2][i / 2], FloatTag(), sums_at + i * kLanes);
  }
}

inline const Expander* QuantizedExpander(QuantFormat format) {
  return MakeFor(format, []<QuantFormat kFormat>() {
    return Expander{ExpandTo<kFormat>, /*unit_bytes=*/0, MultiplyFewRows<kFormat>};
  });
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear

#endif  // STRUCTATTN_KERNELS_LINEAR_QUANTIZED_INL_H_
