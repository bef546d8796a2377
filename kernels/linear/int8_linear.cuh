// The CUDA kernels of Linear with int8 weights: for 16-bit inputs a pipeline of tiles through
// shared memory to tensor cores, for float32 plain multiply-adds. They never split a sum by the
// number of rows: each of a type adds an output's strips of 32 in the same order, so the bits are
// the same whichever is launched.
#ifndef STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_CUH_
#define STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/linear/linear.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

// Fragments (PTX ISA, m16n8k16; g = lane / 4, t = lane % 4): of 16 outputs a lane holds g and g +
// 8, of eight rows 2t and 2t + 1. The sum over the 32 columns of a strip may take them in any order
// that both operands share, so a lane takes columns 8t to 8t + 7, which are one access each: 8
// bytes of codes, 16 of inputs. The first product has four of them, the second the rest.

inline constexpr int kTileColumns = 64;
inline constexpr int kTileStrips = kTileColumns / kInt8ScaleInputs;

// [rows, 64 columns], in chunks of 16 bytes. Chunks are moved by XOR such that the lanes of one
// wavefront (four rows of a strip of codes, two rows of a strip of inputs) lie in different banks.
struct CodeLayout {
  static constexpr int kRowBytes = kTileColumns;
  static constexpr int kChunks = kRowBytes / 16;
  static __device__ int Offset(int row, int chunk) {
    // fault: int8_codes_not_swizzled
    return row * kRowBytes + (chunk ^ (row & 2)) * 16;
  }
};
struct InputLayout {
  static constexpr int kRowBytes = kTileColumns * 2;
  static constexpr int kChunks = kRowBytes / 16;
  static __device__ int Offset(int row, int chunk) {
    // fault: int8_inputs_not_swizzled
    return row * kRowBytes + (chunk ^ (row & 1) * 4) * 16;
  }
};

// The four codes of a word as two registers of two elements, exactly.
template <typename T>
__device__ inline void ExpandCodes(uint32_t codes, uint32_t (&pairs)[2]) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    // With 0x43 above it, a code's lower seven bits are 128 + their value, and its highest bit,
    // which stands for -128, is 128 or 256.
    const uint32_t first = PermuteBytes(codes, 0x43u, 0x4140u);
    const uint32_t second = PermuteBytes(codes, 0x43u, 0x4342u);
    // fault: int8_sign_of_codes_lost
    pairs[0] = SubtractPairs<T>(first & 0xff7fff7fu, first & 0xff80ff80u);
    pairs[1] = SubtractPairs<T>(second & 0xff7fff7fu, second & 0xff80ff80u);
  } else {
    // With 0x64 above it, a code + 128 is 1024 more than that.
    const uint32_t shifted = codes ^ 0x80808080u;
    pairs[0] = SubtractPairs<T>(PermuteBytes(shifted, 0x64u, 0x4140u), 0x64806480u);
    pairs[1] = SubtractPairs<T>(PermuteBytes(shifted, 0x64u, 0x4342u), 0x64806480u);
  }
}

// A strip's codes of kBands x 16 outputs as left operands of its two products. `offset`: of the
// lane's 8 bytes in the first of the warp's rows of codes.
template <typename T, int kBands>
__device__ inline void LoadCodes(int offset, uint32_t (&codes)[kBands][2][4]) {
#pragma unroll
  for (int i = 0; i < 2 * kBands; ++i) {
    const uint2 words = LoadShared<uint2>(offset + i * 8 * CodeLayout::kRowBytes);
    uint32_t first[2];
    uint32_t second[2];
    ExpandCodes<T>(words.x, first);
    ExpandCodes<T>(words.y, second);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // fault: int8_code_fragments_swapped
      codes[i / 2][0][half * 2 + i % 2] = first[half];
      codes[i / 2][1][half * 2 + i % 2] = second[half];
    }
  }
}

// Where a lane finds its columns of a tile's first strip.
struct LanePlaces {
  int codes;
  int inputs;
};

// Adds a tile of 64 columns to `sums`. `scales`: of each of the lane's outputs, those of the two
// strips.
template <typename T, int kBands, int kRowEights>
__device__ inline void AddTile(const LanePlaces& at, const uint32_t (&scales)[2 * kBands],
                               float (&sums)[kBands][kRowEights][4]) {
  // Strips of many rows have enough to overlap by themselves, and no registers for more.
  [[maybe_unused]] constexpr int kTogether = kRowEights > 8 ? 1 : kTileStrips;
#pragma unroll kTogether
  for (int strip = 0; strip < kTileStrips; ++strip) {
    uint32_t codes[kBands][2][4];
    LoadCodes<T>(at.codes ^ strip * kInt8ScaleInputs, codes);
    float scale[2 * kBands];
#pragma unroll
    for (int i = 0; i < 2 * kBands; ++i) {
      // fault: int8_wrong_scale
      scale[i] = Widen(Float16{static_cast<uint16_t>(scales[i] >> strip * 16)});
    }
    const int inputs = at.inputs ^ strip * (2 * kInt8ScaleInputs);
#pragma unroll
    for (int n = 0; n < kRowEights; ++n) {
      const uint4 x = LoadShared<uint4>(inputs + n * 8 * InputLayout::kRowBytes);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        // fault: int8_sum_not_of_one_strip, int8_input_fragments_swapped
        float sum[4] = {};
        MultiplyAccumulate<T>(sum, codes[band][0], x.x, x.y);
        MultiplyAccumulate<T>(sum, codes[band][1], x.z, x.w);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& total = sums[band][n][i];
          // fault: int8_scale_of_the_other_output
          total = fmaf(scale[2 * band + i / 2], sum[i], total);
        }
      }
    }
  }
}

// A thread block has up to kRows rows of the input and kOutputs outputs, and walks the columns in
// tiles of 64:
//
//   wait for tile t, barrier | start copy of tile t + kStages - 1 | multiply tile t
//
// Few rows: bound by reading codes, so small thread blocks that fill the device, and many stages.
// Many rows: a warp has 32 outputs, which halves what it reads of inputs from shared memory; with
// 128 rows, sums and operands would not fit the registers.
template <typename T, int kRows>
struct Int8LinearKernel {
  using Params = LinearParams;
  static constexpr const char* kName = "int8_linear";
  static constexpr int kBands = kRows <= 64 ? 1 : 2;  // Bands of 16 outputs, a warp.
  static constexpr int kWarps = kRows <= 16 ? 2 : 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kOutputs = kWarps * kBands * 16;
  // Three thread blocks of the smallest, two of the others fit 100 KB of shared memory.
  static constexpr int kStages = kRows <= 16 ? 7 : kRows <= 64 ? 4 : 2;
  static constexpr int kMinBlocks = kRows <= 16 ? 5 : kRows <= 64 ? 3 : 2;

  // Scales go through registers: a row of them is aligned to two bytes only. A span is those of
  // kSpanTiles tiles, so that a load has as long to arrive.
  static constexpr int kSpanTiles = kRows <= 16 ? 4 : kRows <= 64 ? 2 : 1;
  static constexpr int kSpanStrips = kSpanTiles * kTileStrips;
  static constexpr int kHeld = kOutputs * kSpanStrips / kThreads;  // Scales a thread loads of it.
  static_assert(kSpanStrips % kHeld == 0);

  static constexpr int kCodeBytes = kOutputs * CodeLayout::kRowBytes;
  static constexpr int kStageBytes = kCodeBytes + kRows * InputLayout::kRowBytes;
  static constexpr int kScaleRowBytes = kSpanStrips * 2;
  static constexpr int kSpanBytes = kOutputs * kScaleRowBytes;
  static constexpr int kScaleOffset = kStages * kStageBytes;
  static constexpr int kMaxSharedBytes = kScaleOffset + 2 * kSpanBytes;
  static_assert(kMaxSharedBytes <= 99 * 1024, "sm_86, sm_89 and sm_120 allow no more");

  // Blocks of the same outputs are next to each other: they share the codes in the L2 cache.
  static LaunchShape Shape(const Params& p) {
    return {.grid_x = BlocksFor(p.rows, kRows),
            .grid_y = BlocksFor(p.weight.outputs, kOutputs),
            .shared_bytes = kMaxSharedBytes};
  }

  // What a thread copies: one chunk of a tile's columns, in every kStep-th row. The tiles in order.
  template <typename Layout>
  struct Copier {
    static constexpr int kStep = kThreads / Layout::kChunks;

    const char* from;   // The thread's first row of the next tile.
    int64_t row_bytes;  // Bytes between rows in global memory.
    int left;           // Bytes from there to the row's end; not above 0: none.
    int rows;           // Existing rows, counted from the thread's first.
    int first;          // Offset of the first in the tile.

    // The thread block's rows begin with `row_begin` of `all_rows`.
    __device__ Copier(const void* array, int64_t row_bytes, int64_t row_begin, int64_t all_rows)
        : row_bytes(row_bytes) {
      const int row = ThreadIndex() / Layout::kChunks;
      const int chunk = ThreadIndex() % Layout::kChunks;
      from = static_cast<const char*>(array) + (row_begin + row) * row_bytes + chunk * 16;
      left = static_cast<int>(row_bytes) - chunk * 16;
      rows = static_cast<int>(min(all_rows - row_begin, int64_t{kThreads})) - row;
      first = Layout::Offset(row, chunk);
    }

    // kCount rows to the tile at shared offset `to`. Rows and columns that do not exist are zero.
    template <int kCount>
    __device__ void Copy(int to) {
      static_assert(kCount <= kThreads && kCount % kStep == 0);
      static_assert(kStep % 8 == 0, "whole periods of the layout");
      const char* chunk = from;
#pragma unroll
      for (int row = 0; row < kCount; row += kStep) {
        // fault: int8_columns_past_the_end, int8_rows_past_the_end, int8_rest_not_filled
        CopyAsync16(to + first + row * Layout::kRowBytes, chunk, left > 0 && row < rows);
        chunk += kStep * row_bytes;
      }
      from += Layout::kRowBytes;
      left -= Layout::kRowBytes;
    }
  };

  struct Work {
    Copier<CodeLayout> codes;
    Copier<InputLayout> inputs;
    const Float16* scales;  // The thread's first of span 0.
    int scale_strips;       // From there to the end of the row; 0 for an output that is none.
    int tiles;
  };

  static __device__ Work FindWork(const Params& p) {
    const int64_t output = int64_t{BlockY()} * kOutputs;
    const int64_t row = int64_t{BlockX()} * kRows;
    const int64_t strips = p.weight.inputs / kInt8ScaleInputs;
    const int64_t scale_output = output + ThreadIndex() * kHeld / kSpanStrips;
    const int first_strip = ThreadIndex() * kHeld % kSpanStrips;
    return {
        .codes = Copier<CodeLayout>(p.weight.codes, p.weight.inputs, output, p.weight.outputs),
        .inputs = Copier<InputLayout>(p.input, p.weight.inputs * int64_t{sizeof(T)}, row, p.rows),
        .scales = p.weight.scales + scale_output * strips + first_strip,
        .scale_strips =
            scale_output < p.weight.outputs ? static_cast<int>(strips) - first_strip : 0,
        .tiles = static_cast<int>((strips + kTileStrips - 1) / kTileStrips)};
  }

  // fault: int8_one_span_of_scales
  static __device__ int SpanOffset(int t) { return kScaleOffset + t / kSpanTiles % 2 * kSpanBytes; }

  // Starts to copy tile t into its stage, as one commit.
  static __device__ void CopyTile(int t, int stage, Work& work) {
    // fault: int8_copies_past_the_last_tile
    if (t < work.tiles) {
      work.codes.template Copy<kOutputs>(stage * kStageBytes);
      work.inputs.template Copy<kRows>(stage * kStageBytes + kCodeBytes);
    }
    CommitCopies();
  }

  // The span that begins with tile t; zeros past the row's end. Not packed before StoreScales: that
  // would wait for the loads.
  static __device__ void LoadScales(const Work& work, int t, uint16_t (&held)[kHeld]) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int strip = t * kTileStrips + i;
      held[i] = 0;
      // fault: int8_scales_past_the_end
      if (strip < work.scale_strips) held[i] = LoadGlobal(work.scales + strip).bits;
    }
  }

  static __device__ void StoreScales(int t, const uint16_t (&held)[kHeld]) {
    Packed<uint16_t, kHeld> packed;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) packed.values[i] = held[i];
    StoreShared(SpanOffset(t) + ThreadIndex() * kHeld * 2, packed);
  }

  // The first of the warp's outputs that the lane holds, counted from the
  // thread block's.
  static __device__ int LaneOutput() { return WarpIndex() * kBands * 16 + LaneIndex() / 4; }

  static __device__ LanePlaces FindPlaces() {
    const int t = LaneIndex() % 4;
    return {.codes = CodeLayout::Offset(LaneOutput(), t / 2) + t % 2 * 8,
            .inputs = kCodeBytes + InputLayout::Offset(LaneIndex() / 4, t)};
  }

  using Sums = float[kBands][kRows / 8][4];  // [kBands x 16 outputs, kRows]

  static __device__ void MultiplyTile(int t, int stage, const LanePlaces& places, Sums& sums) {
    uint32_t scales[2 * kBands];
    const int offset =
        SpanOffset(t) + LaneOutput() * kScaleRowBytes + t % kSpanTiles * kTileStrips * 2;
#pragma unroll
    for (int i = 0; i < 2 * kBands; ++i) {
      scales[i] = LoadShared<uint32_t>(offset + i * 8 * kScaleRowBytes);
    }
    AddTile<T>({.codes = stage * kStageBytes + places.codes,
                .inputs = stage * kStageBytes + places.inputs},
               scales, sums);
  }

  static __device__ void StoreSums(const Params& p, const Sums& sums) {
    const int64_t first_output = int64_t{BlockY()} * kOutputs + LaneOutput();
    const int64_t first_row = int64_t{BlockX()} * kRows + LaneIndex() % 4 * 2;
#pragma unroll
    for (int n = 0; n < kRows / 8 * 2; ++n) {
      const int64_t row = first_row + n / 2 * 8 + n % 2;
#pragma unroll
      for (int i = 0; i < 2 * kBands; ++i) {
        const int64_t output = first_output + i * 8;
        // fault: int8_outputs_past_the_end
        if (row >= p.rows || output >= p.weight.outputs) continue;
        float* to = p.output + row * p.weight.outputs + output;
        const float sum = sums[i / 2][n / 2][i % 2 * 2 + n % 2];
        StoreGlobal(to, p.accumulate ? LoadGlobal(to) + sum : sum);
      }
    }
  }

  static __device__ void Run(const Params& p) {
    Work work = FindWork(p);
    const LanePlaces places = FindPlaces();
    uint16_t held[kHeld];
    LoadScales(work, 0, held);
#pragma unroll
    for (int t = 0; t < kStages - 1; ++t) CopyTile(t, t, work);
    Sums sums = {};
    int stage = 0;
    int free_stage = kStages - 1;
    for (int t = 0; t < work.tiles; ++t) {
      if (t % kSpanTiles == 0) {
        StoreScales(t, held);
        // fault: int8_stale_scales
        LoadScales(work, t + kSpanTiles, held);
      }
      // fault: int8_tile_not_waited_for, int8_no_barrier, int8_copy_over_the_tile_in_use
      WaitCopies<kStages - 2>();
      BlockBarrier();  // Tile t is there for all threads; tile t - 1 is no longer read.
      CopyTile(t + kStages - 1, free_stage, work);
      MultiplyTile(t, stage, places, sums);
      free_stage = stage;
      stage = stage + 1 < kStages ? stage + 1 : 0;
    }
    StoreSums(p, sums);
  }
};

// Eight lanes an output, four columns of every strip each. A code times a scale has 19 bits, so
// weights are exact.
struct Int8LinearFloatKernel {
  using Params = LinearParams;
  static constexpr const char* kName = "int8_linear (float32)";
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocks = 8;
  static constexpr int kMaxSharedBytes = 0;
  static constexpr int kLanes = kInt8ScaleInputs / kVectorWidth;
  static constexpr int kOutputs = kThreads / kLanes;

  static LaunchShape Shape(const Params& p) {
    return {.grid_x = static_cast<unsigned>(p.rows),
            .grid_y = BlocksFor(p.weight.outputs, kOutputs)};
  }

  static __device__ void Run(const Params& p) {
    const int64_t row = BlockX();
    const int64_t output = int64_t{BlockY()} * kOutputs + ThreadIndex() / kLanes;
    const int column = ThreadIndex() % kLanes * kVectorWidth;
    const int strips =
        output < p.weight.outputs ? static_cast<int>(p.weight.inputs / kInt8ScaleInputs) : 0;
    const float* input = static_cast<const float*>(p.input) + row * p.weight.inputs + column;
    const int8_t* codes = p.weight.codes + output * p.weight.inputs + column;
    const Float16* scales = p.weight.scales + output * strips;
    float sum = 0.0f;
    for (int strip = 0; strip < strips; ++strip) {
      const int64_t k = int64_t{strip} * kInt8ScaleInputs;
      float x[kVectorWidth];
      LoadFloats(input + k, x);
      const auto four =
          LoadGlobal(reinterpret_cast<const Packed<int8_t, kVectorWidth>*>(codes + k));
      const float scale = Widen(LoadGlobal(scales + strip));
#pragma unroll
      for (int i = 0; i < kVectorWidth; ++i) {
        sum = fmaf(x[i], static_cast<float>(four.values[i]) * scale, sum);
      }
    }
    // fault: int8_sum_of_some_lanes_only
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) sum += ShuffleXor(sum, lanes);
    if (output >= p.weight.outputs || column != 0) return;
    float* to = p.output + row * p.weight.outputs + output;
    StoreGlobal(to, p.accumulate ? LoadGlobal(to) + sum : sum);
  }
};

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_CUH_
