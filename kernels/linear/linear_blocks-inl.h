// Expands panels of blocks (block_panel.h) to the cells that an engine multiplies: floats, or pairs
// of bfloat16. Included once by each linear_<isa>.cc before linear-inl.h, under its conditions;
// plain loops over a panel's outputs, which the compiler turns into that file's vectors.
//
// A value is what LayoutOf says, bit for bit the float that GGML's reference gives: every operation
// rounds (nothing is contracted), and adding a negated minimum is subtracting it.

namespace structattn {
namespace {

// Half to float without a branch, subnormals, infinities and NaN included.
inline float FloatOfHalf(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const float small = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = magnitude > 0x7c00u ? 0x7fc00000u : 0x7f800000u;
  uint32_t bits = magnitude < 0x400u ? __builtin_bit_cast(uint32_t, small) : normal;
  bits = magnitude >= 0x7c00u ? special : bits;
  return __builtin_bit_cast(float, bits | sign);
}

// Bits of the nearest bfloat16, ties to even. NaN is quiet here, so it stays NaN.
inline uint32_t RoundToBfloat16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// Where two inputs' values go: to two steps of floats, or to one step of pairs.
template <int kOutputs>
struct FloatCellsOf {
  using Cell = float;
  static constexpr int kCellsPerPair = 2 * kOutputs;
  static void Store(const float* even, const float* odd, Cell* to) {
    for (int o = 0; o < kOutputs; ++o) to[o] = even[o];
    for (int o = 0; o < kOutputs; ++o) to[kOutputs + o] = odd[o];
  }
};
template <int kOutputs>
struct PairCellsOf {
  using Cell = uint32_t;
  static constexpr int kCellsPerPair = kOutputs;
  static void Store(const float* even, const float* odd, Cell* to) {
    for (int o = 0; o < kOutputs; ++o) {
      to[o] = RoundToBfloat16(even[o]) | (RoundToBfloat16(odd[o]) << 16);
    }
  }
};

template <BlockFormat kFormat, int kOutputs, template <int> class CellsOf>
class ChunkExpander {
 public:
  using Cells = CellsOf<kOutputs>;

  static void Run(const void* panel, int64_t first, int64_t count, void* cells) {
    auto* to = static_cast<typename Cells::Cell*>(cells);
    for (int64_t chunk = first; chunk < first + count; ++chunk) {
      const auto* block =
          static_cast<const uint8_t*>(panel) + chunk / kBlock.chunks * kAt.block_bytes;
      const uint8_t* const at = block + kAt.chunks + chunk % kBlock.chunks * kAt.chunk_bytes;
      Factors factors;
      ReadFactors(block, at, factors);
      Expand(at, factors, to);
      to += kChunkInputs / 2 * Cells::kCellsPerPair;
    }
  }

 private:
  static constexpr BlockLayout kBlock = LayoutOf(kFormat);
  static constexpr BlockPanelLayout kAt = PanelLayoutOf(kFormat, kOutputs);
  static constexpr int kPairsPerGroup = kChunkInputs / 2 / kBlock.groups_per_chunk;
  static constexpr int kAhead = 1024;  // Bytes; prefetched into all caches.

  struct Factors {
    alignas(64) float scale[kBlock.groups_per_chunk][kOutputs];
    alignas(64) float shift[kOutputs];
  };

  static void ReadFactors(const uint8_t* block, const uint8_t* chunk, Factors& factors) {
    const auto* scales = reinterpret_cast<const uint16_t*>(block);
    const auto* shifts = reinterpret_cast<const uint16_t*>(block + kAt.shifts);
    for (int group = 0; group < kBlock.groups_per_chunk; ++group) {
      for (int o = 0; o < kOutputs; ++o) {
        float scale = FloatOfHalf(scales[o]);
        if constexpr (kBlock.has_group_scales()) {
          const uint8_t byte = chunk[group * kOutputs + o];
          scale *= kFormat == BlockFormat::kQ6_K ? static_cast<float>(static_cast<int8_t>(byte))
                                                 : static_cast<float>(byte);
        }
        factors.scale[group][o] = scale;
      }
    }
    for (int o = 0; kBlock.has_shift && o < kOutputs; ++o) {
      factors.shift[o] = FloatOfHalf(shifts[o]);
      if constexpr (kBlock.has_group_scales()) {
        factors.shift[o] = -(factors.shift[o] * static_cast<float>(chunk[kAt.minima + o]));
      }
    }
  }

  static void Expand(const uint8_t* chunk, const Factors& factors, typename Cells::Cell* to) {
    for (int pair = 0; pair < kChunkInputs / 2; ++pair) {
      constexpr int kPairBytes = (kBlock.code_bits == 8 ? 2 : 1) * kOutputs;
      for (int line = 0; line < kPairBytes; line += 64) {
        __builtin_prefetch(chunk + kAt.codes + pair * kPairBytes + line + kAhead);
      }
      const float* const scale = factors.scale[pair / kPairsPerGroup];
      alignas(64) float even[kOutputs];
      alignas(64) float odd[kOutputs];
      for (int o = 0; o < kOutputs; ++o) {
        even[o] = scale[o] * static_cast<float>(Code<0>(chunk, pair, o));
        odd[o] = scale[o] * static_cast<float>(Code<1>(chunk, pair, o));
        if constexpr (kBlock.has_shift) {
          even[o] += factors.shift[o];
          odd[o] += factors.shift[o];
        }
      }
      Cells::Store(even, odd, to + pair * Cells::kCellsPerPair);
    }
  }

  // Of input 2 pair + kOdd, its offset taken away.
  template <int kOdd>
  static int32_t Code(const uint8_t* chunk, int pair, int output) {
    const uint8_t* const codes = chunk + kAt.codes;
    if constexpr (kBlock.code_bits == 8) {
      return static_cast<int8_t>(codes[(2 * pair + kOdd) * kOutputs + output]);
    } else {
      int32_t code = (codes[pair * kOutputs + output] >> (4 * kOdd)) & 15;
      if constexpr (kBlock.code_bits >= 5) {
        code |= Bit<4>(chunk + kAt.fifth_bits, 2 * pair + kOdd, output);
      }
      if constexpr (kBlock.code_bits >= 6) {
        code |= Bit<5>(chunk + kAt.sixth_bits, 2 * pair + kOdd, output);
      }
      return code - kBlock.offset;
    }
  }

  template <int kPlace>
  static int32_t Bit(const uint8_t* plane, int input, int output) {
    const uint32_t word = reinterpret_cast<const uint32_t*>(plane)[output];
    return static_cast<int32_t>((word >> input) & 1u) << kPlace;
  }
};

template <int kOutputs, template <int> class CellsOf>
UnpackChunks ExpanderOf(BlockFormat format) {
  switch (format) {
    case BlockFormat::kQ4_0:
      return ChunkExpander<BlockFormat::kQ4_0, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ4_1:
      return ChunkExpander<BlockFormat::kQ4_1, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ5_0:
      return ChunkExpander<BlockFormat::kQ5_0, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ5_1:
      return ChunkExpander<BlockFormat::kQ5_1, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ8_0:
      return ChunkExpander<BlockFormat::kQ8_0, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ4_K:
      return ChunkExpander<BlockFormat::kQ4_K, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ5_K:
      return ChunkExpander<BlockFormat::kQ5_K, kOutputs, CellsOf>::Run;
    case BlockFormat::kQ6_K:
      return ChunkExpander<BlockFormat::kQ6_K, kOutputs, CellsOf>::Run;
  }
  return nullptr;
}

}  // namespace
}  // namespace structattn
