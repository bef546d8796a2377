// The quantized dot product: bfloat16 inputs and quantized weights multiplied in integers, in
// templates over an Engine that multiplies them; and the engines: on AVX512_VNNI four products of
// bytes and their sum in one instruction, elsewhere pairs of 16-bit words.
//
// Definition. The 32 inputs x of a row that meet a chunk are integers n times a power of two:
//   quantum = 2^(e - 14), where 2^e is the least power of two above all |x|, and at least 2^-86;
//   n = x / quantum to the nearest integer, ties to even: at most 2^14 in magnitude, and, where
//   that least is not needed, exact for inputs within a factor of 2^6 of the largest. Where an x is
//   not finite, quantum is NaN.
// A sum begins at 0 and meets chunk after chunk; in a chunk, strip after strip of values with a
// scale,
//   sum = sum + float(sum over the strip of n * (code - offset)) * (scale * quantum)
// and then, where values have a shift,
//   sum = sum + float(sum over the chunk of n) * (shift * quantum)
// each as one fused multiply-add; the bias and what is accumulated come last. Integers are exact,
// whatever their order: all engines give the same bits.
//
// No weight is expanded to a number, which would be most of the work of a generated token: four
// codes of an output lie in one word, and are multiplied as they are.

// As in linear_float.cc.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/quantized_dot.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <algorithm>
#include <concepts>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/linear/quantized_panel.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
#endif
#include "kernels/linear/linear-inl.h"
#include "kernels/linear/quantized-inl.h"

namespace structattn::linear {
namespace HWY_NAMESPACE {
namespace {

inline constexpr int kDotInputs = 4;  // Inputs of an output in one word of codes.
inline constexpr int kDots = kChunkInputs / kDotInputs;
inline constexpr int64_t kStagedChunks = 32;  // Chunks of a row staged at a time.

// What multiplies: Inputs are the n of a chunk as the engine wants them, which Split makes; Load
// makes the same of the codes of a dot product, four to each lane; Sums are an integer in each
// lane. kMaxRows is the height of a tile, at most.
template <class E>
concept Engine = requires(const int32_t (&n)[kChunkInputs], typename E::Inputs& inputs, int dot,
                          Words codes, typename E::Sums& sums) {
  E::Split(n, inputs);
  { E::Begin(int32_t{}) } -> std::same_as<typename E::Sums>;
  E::MultiplyAdd(inputs, dot, E::Load(codes), sums);
  { E::Total(sums) } -> std::same_as<Ints>;
  requires E::kMaxRows >= 1;
};

inline Floats FusedMultiplyAdd(Floats a, Floats b, Floats sum) {
#if HWY_NATIVE_FMA
  return BitCastLanes<Floats>(hn::MulAdd(BitCastLanes<FloatVector>(a), BitCastLanes<FloatVector>(b),
                                         BitCastLanes<FloatVector>(sum)));
#else
  for (int i = 0; i < kLanes; ++i) sum[i] = __builtin_fmaf(a[i], b[i], sum[i]);
  return sum;
#endif
}

// 32 inputs of a row.
template <Engine E>
struct StagedChunk {
  typename E::Inputs inputs;
  int32_t sums[2];  // The sum of n in each half of the chunk.
  float quantum;
};

template <Engine E>
void StageChunk(const Bfloat16* inputs, int64_t count, StagedChunk<E>& to) {
  uint16_t bits[kChunkInputs] = {};
  std::memcpy(bits, inputs, sizeof(*bits) * std::min<int64_t>(count, kChunkInputs));
  uint32_t largest = 0;
  for (const uint16_t x : bits) {
    const uint32_t magnitude = x & 0x7fffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  constexpr uint32_t kNotFinite = 0x7f80;
  constexpr uint32_t kLeastExponent = 40;
  const bool finite = largest < kNotFinite;
  const uint32_t exponent = (largest >> 7) > kLeastExponent ? largest >> 7 : kLeastExponent;
  to.quantum = finite ? BitCastLanes<float>((exponent - 13) << 23) : __builtin_nanf("");
  const float inverse = BitCastLanes<float>((267 - exponent) << 23);
  const uint32_t kept = finite ? 0xffff0000u : 0u;
  int32_t n[kChunkInputs];
  for (int i = 0; i < kChunkInputs; ++i) {
    constexpr float kMagic = 0x1.8p23f;  // The last place of its sum with a small number is 1.
    const float x = BitCastLanes<float>((static_cast<uint32_t>(bits[i]) << 16) & kept);
    n[i] = BitCastLanes<int32_t>(x * inverse + kMagic) - BitCastLanes<int32_t>(kMagic);
  }
  for (int half = 0; half < 2; ++half) {
    int32_t sum = 0;
    for (int i = 0; i < kChunkInputs / 2; ++i) sum += n[half * (kChunkInputs / 2) + i];
    to.sums[half] = sum;
  }
  E::Split(n, to.inputs);
}

// The four codes of a dot product of each output of half a panel, in bytes.
template <QuantFormat kFormat>
Words ReadDotCodes(const uint8_t* chunk, int dot, int half, Words fifth, Words sixth) {
  constexpr int kBits = kLayout<kFormat>.code_bits;
  constexpr uint32_t kOnes = 0x01010101;
  const int row = kBits == 8 ? dot : dot / 2;
  Words codes;
  std::memcpy(&codes,
              chunk + kAt<kFormat>.codes + kDotInputs * (row * kPanelOutputs + half * kLanes),
              sizeof(codes));
  if constexpr (kBits != 8) codes = (dot % 2 == 0 ? codes : codes >> 4) & (15 * kOnes);
  if constexpr (kBits == 5 || kBits == 6) codes |= ((fifth >> dot) & kOnes) << 4;
  if constexpr (kBits == 6) codes |= ((sixth >> dot) & kOnes) << 5;
  return codes;
}

// Adds a chunk of a panel to the sums of kRows rows, whose staged chunks are kStagedChunks apart.
template <QuantFormat kFormat, Engine E, int kRows>
void MultiplyChunk(const ChunkPlace& at, const StagedChunk<E>* staged, Floats (&sums)[kRows][2]) {
  constexpr QuantBlockLayout kLayoutHere = kLayout<kFormat>;
  constexpr int kStrips = kLayoutHere.strips_per_chunk;
  // What a code is too large by.
  constexpr int32_t kZero = kLayoutHere.code_bits == 8 ? 128 : kLayoutHere.offset;
  const Words fifth[2] = {ReadBits<kFormat, 4>(at.chunk, 0), ReadBits<kFormat, 4>(at.chunk, 1)};
  const Words sixth[2] = {ReadBits<kFormat, 5>(at.chunk, 0), ReadBits<kFormat, 5>(at.chunk, 1)};
#pragma GCC unroll 2
  for (int strip = 0; strip < kStrips; ++strip) {
    typename E::Sums integers[kRows][2];
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      const int32_t* const n = staged[row * kStagedChunks].sums;
      const int32_t inputs = kStrips == 1 ? n[0] + n[1] : n[strip];
      integers[row][0] = integers[row][1] = E::Begin(-kZero * inputs);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kDots / kStrips; ++i) {
      const int dot = strip * (kDots / kStrips) + i;
      PrefetchChunk<kFormat>(at.chunk, dot, kDots);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const auto codes =
            E::Load(ReadDotCodes<kFormat>(at.chunk, dot, half, fifth[half], sixth[half]));
#pragma GCC unroll 4
        for (int row = 0; row < kRows; ++row) {
          E::MultiplyAdd(staged[row * kStagedChunks].inputs, dot, codes, integers[row][half]);
        }
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Floats scale = ReadScale<kFormat>(at, strip, half * kLanes);
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) {
        const Floats total = __builtin_convertvector(E::Total(integers[row][half]), Floats);
        sums[row][half] =
            FusedMultiplyAdd(total, scale * staged[row * kStagedChunks].quantum, sums[row][half]);
      }
    }
  }
  if constexpr (kLayoutHere.has_shift) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Floats shift = ReadShift<kFormat>(at, half * kLanes);
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) {
        const StagedChunk<E>& inputs = staged[row * kStagedChunks];
        const Floats total = Floats{} + static_cast<float>(inputs.sums[0] + inputs.sums[1]);
        sums[row][half] = FusedMultiplyAdd(total, shift * inputs.quantum, sums[row][half]);
      }
    }
  }
}

// Chunks [first, first + count) of a panel for `rows` rows, a number searched at compile time;
// `sums_at`: [rows, kPanelOutputs].
template <QuantFormat kFormat, Engine E, int kRows = E::kMaxRows>
void MultiplyChunks(int rows, const void* panel, UnitRange chunks, const StagedChunk<E>* staged,
                    float* sums_at) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return MultiplyChunks<kFormat, E, kRows - 1>(rows, panel, chunks, staged, sums_at);
    }
  }
  Floats sums[kRows][2];
  std::memcpy(sums, sums_at, sizeof(sums));
  for (int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk, ++staged) {
    MultiplyChunk<kFormat, E, kRows>(FindChunk<kFormat>(panel, chunk), staged, sums);
  }
  std::memcpy(sums_at, sums, sizeof(sums));
}

template <Engine E>
class QuantizedDotItem {
 public:
  explicit QuantizedDotItem(const LinearItem& item)
      : item_(item),
        multiply_(*MakeFor(item.format,
                           []<QuantFormat kFormat>() { return &MultiplyChunks<kFormat, E>; })),
        rows_(static_cast<int>(item.row_end - item.row_begin)) {}

  void Run() {
    const int64_t chunks = item_.units / kChunkInputs;
    const int64_t panels = (item_.outputs + kPanelOutputs - 1) / kPanelOutputs;
    for (int64_t first = 0; first < panels; first += kMacroPanels) {
      const int64_t count = std::min<int64_t>(panels - first, kMacroPanels);
      std::memset(sums_, 0, sizeof(float) * count * rows_ * kPanelOutputs);
      for (int64_t begin = 0; begin < chunks; begin += kStagedChunks) {
        const UnitRange slice = {begin, std::min(begin + kStagedChunks, chunks)};
        Stage(slice);
        for (int64_t i = 0; i < count; ++i) MultiplyPanel(first + i, slice, SumsOf(i));
      }
      for (int64_t i = 0; i < count; ++i) Finish(first + i, SumsOf(i));
    }
  }

 private:
  void Stage(UnitRange chunks) {
    if (chunks.begin == staged_begin_) return;
    staged_begin_ = chunks.begin;
    for (int row = 0; row < rows_; ++row) {
      const auto* const inputs =
          static_cast<const Bfloat16*>(item_.input) + (item_.row_begin + row) * item_.inputs;
      for (int64_t i = 0; i < chunks.count(); ++i) {
        const int64_t input = (chunks.begin + i) * kChunkInputs;
        StageChunk<E>(inputs + input, item_.inputs - input, staged_[row * kStagedChunks + i]);
      }
    }
  }

  float* SumsOf(int64_t panel) { return sums_ + panel * rows_ * kPanelOutputs; }

  // Multiplies the item's rows in tiles of nearly equal height.
  void MultiplyPanel(int64_t panel, UnitRange chunks, float* sums) const {
    const char* const at = static_cast<const char*>(item_.panels) + panel * item_.panel_bytes;
    const int tiles = (rows_ + E::kMaxRows - 1) / E::kMaxRows;
    for (int tile = 0; tile < tiles; ++tile) {
      const int row = rows_ * tile / tiles;
      const int rows = rows_ * (tile + 1) / tiles - row;
      multiply_(rows, at, chunks, staged_ + row * kStagedChunks, sums + row * kPanelOutputs);
    }
  }

  void Finish(int64_t panel, const float* sums) const {
    const int64_t first = panel * kPanelOutputs;
    const int64_t left = item_.outputs - first;
    for (int row = 0; row < rows_; ++row, sums += kPanelOutputs) {
      const SumPlaces at = {
          .from = sums,
          .from_stride = 0,
          .to = item_.output + (item_.row_begin + row) * item_.output_stride + first,
          .to_stride = 0,
          .bias = item_.bias == nullptr ? nullptr : item_.bias + first,
          .accumulate = item_.accumulate};
      if (left >= kPanelOutputs) {
        for (int i = 0; i < 2; ++i) EndSum(at, 0, i * kLanes, BeginSum(at, 0, i * kLanes));
        continue;
      }
      EndRest(at, left);
    }
  }

  const LinearItem& item_;
  void (*const multiply_)(int, const void*, UnitRange, const StagedChunk<E>*, float*);
  const int rows_;
  int64_t staged_begin_ = -1;
  StagedChunk<E> staged_[kItemRows * kStagedChunks];
  alignas(64) float sums_[kMacroPanels * kItemRows * kPanelOutputs];
};

#if HWY_TARGET == HWY_AVX3

// The instruction multiplies unsigned bytes, the codes, by signed ones: n = 256 high + low.
struct DotEngine {
  static constexpr int kMaxRows = 4;
  struct Inputs {
    int8_t high[kChunkInputs];
    int8_t low[kChunkInputs];
  };
  struct Sums {
    __m512i high;
    __m512i low;
  };

  static void Split(const int32_t (&n)[kChunkInputs], Inputs& to) {
    for (int i = 0; i < kChunkInputs; ++i) {
      const int32_t high = (n[i] + 128) >> 8;
      to.high[i] = static_cast<int8_t>(high);
      to.low[i] = static_cast<int8_t>(n[i] - (high << 8));
    }
  }

  static __m512i Load(Words codes) { return (__m512i)codes; }
  static Sums Begin(int32_t sum) { return {_mm512_setzero_si512(), _mm512_set1_epi32(sum)}; }
  static void MultiplyAdd(const Inputs& inputs, int dot, __m512i codes, Sums& sums) {
    sums.high = _mm512_dpbusd_epi32(sums.high, codes, Four(inputs.high + dot * kDotInputs));
    sums.low = _mm512_dpbusd_epi32(sums.low, codes, Four(inputs.low + dot * kDotInputs));
  }
  static Ints Total(const Sums& sums) { return ((Ints)sums.high << 8) + (Ints)sums.low; }

 private:
  static __m512i Four(const int8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof(four));
    return _mm512_set1_epi32(four);
  }
};

#else

// Pairs of 16-bit words, the lower ones in the lower halves, multiplied and added.
inline Ints MultiplyPairs(Words codes, int32_t inputs) {
#if HWY_TARGET == HWY_SCALAR
  return BitCastLanes<Ints>(codes & 0xffffu) * int32_t{static_cast<int16_t>(inputs)} +
         BitCastLanes<Ints>(codes >> 16) * (inputs >> 16);
#else
  const hn::RebindToSigned<FloatTag> ints;
  const hn::RepartitionToNarrow<decltype(ints)> words;
  auto rest = hn::Zero(ints);
  const auto sum = hn::ReorderWidenMulAccumulate(
      ints, BitCastLanes<hn::Vec<decltype(words)> >(codes),
      hn::BitCast(words, hn::Set(ints, inputs)), hn::Zero(ints), rest);
  return BitCastLanes<Ints>(hn::RearrangeToOddPlusEven(sum, rest));
#endif
}

// The inputs of a dot product are in the order 0, 2, 1, 3, as its even and odd bytes lie when they
// become words.
struct DotEngine {
  static constexpr int kMaxRows = 2;
  struct Inputs {
    int16_t n[kChunkInputs];
  };
  struct Codes {
    Words even;
    Words odd;
  };
  using Sums = Ints;

  static void Split(const int32_t (&n)[kChunkInputs], Inputs& to) {
    constexpr int kOrder[kDotInputs] = {0, 2, 1, 3};
    for (int i = 0; i < kChunkInputs; ++i) {
      const int from = i / kDotInputs * kDotInputs + kOrder[i % kDotInputs];
      to.n[i] = static_cast<int16_t>(n[from]);
    }
  }

  static Codes Load(Words codes) { return {codes & 0x00ff00ffu, (codes >> 8) & 0x00ff00ffu}; }
  static Sums Begin(int32_t sum) { return Ints{} + sum; }
  static void MultiplyAdd(const Inputs& inputs, int dot, const Codes& codes, Sums& sums) {
    int32_t pairs[2];
    std::memcpy(pairs, inputs.n + dot * kDotInputs, sizeof(pairs));
    sums += MultiplyPairs(codes.even, pairs[0]);
    sums += MultiplyPairs(codes.odd, pairs[1]);
  }
  static Ints Total(Sums sums) { return sums; }
};

#endif

}  // namespace

void RunQuantizedDot(const LinearItem& item) { QuantizedDotItem<DotEngine>(item).Run(); }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn::linear
#if HWY_TARGET == HWY_AVX3
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();
