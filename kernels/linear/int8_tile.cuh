// Codes and inputs of 64 columns in shared memory, and what a warp computes with them on tensor
// cores: sums of 32 products, one scale's worth, added up in float. Used by int8_linear_cuda.cu;
// knows no global memory and no pipeline.
//
// Fragments (PTX ISA, m16n8k16; g = lane / 4, t = lane % 4): of 16 outputs a lane holds g and g +
// 8, of eight rows 2t and 2t + 1. The sum over the 32 columns of a strip may take them in any order
// that both operands share, so a lane takes columns 8t to 8t + 7, which are one access each: 8
// bytes of codes, 16 of inputs. The first product has four of them, the second the rest.
#ifndef STRUCTATTN_KERNELS_LINEAR_INT8_TILE_CUH_
#define STRUCTATTN_KERNELS_LINEAR_INT8_TILE_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/linear/int8_linear.h"

namespace structattn::STRUCTATTN_CUDA_NAMESPACE {

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

// A strip's codes of kBands x 16 outputs as left operands of its two products.
template <int kBands>
struct CodeFragments {
  uint32_t a[kBands][2][4];
};

// `offset`: of the lane's 8 bytes in the first of the warp's rows of codes.
template <typename T, int kBands>
__device__ inline void LoadCodes(int offset, CodeFragments<kBands>& codes) {
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
      codes.a[i / 2][0][half * 2 + i % 2] = first[half];
      codes.a[i / 2][1][half * 2 + i % 2] = second[half];
    }
  }
}

// [kBands x 16 outputs, kRows]
template <int kBands, int kRows>
struct LinearFragments {
  float c[kBands][kRows / 8][4];
};

// Where a lane finds its columns of a tile's first strip.
struct LanePlaces {
  int codes;
  int inputs;
};

// Adds a tile of 64 columns to `sums`. `scales`: of each of the lane's outputs, those of the two
// strips.
template <typename T, int kBands, int kRows>
__device__ inline void AddTile(const LanePlaces& at, const uint32_t (&scales)[2 * kBands],
                               LinearFragments<kBands, kRows>& sums) {
  // Strips of many rows have enough to overlap by themselves, and no registers for more.
  [[maybe_unused]] constexpr int kTogether = kRows > 64 ? 1 : kTileStrips;
#pragma unroll kTogether
  for (int strip = 0; strip < kTileStrips; ++strip) {
    CodeFragments<kBands> codes;
    LoadCodes<T>(at.codes ^ strip * kInt8ScaleInputs, codes);
    float scale[2 * kBands];
#pragma unroll
    for (int i = 0; i < 2 * kBands; ++i) {
      // fault: int8_wrong_scale_group
      scale[i] = Widen(Float16{static_cast<uint16_t>(scales[i] >> strip * 16)});
    }
    const int inputs = at.inputs ^ strip * (2 * kInt8ScaleInputs);
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) {
      const uint4 x = LoadShared<uint4>(inputs + n * 8 * InputLayout::kRowBytes);
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        // fault: int8_sum_not_of_one_group, int8_input_fragments_swapped
        float sum[4] = {};
        MultiplyAccumulate<T>(sum, codes.a[band][0], x.x, x.y);
        MultiplyAccumulate<T>(sum, codes.a[band][1], x.z, x.w);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& total = sums.c[band][n][i];
          // fault: int8_scale_of_the_other_output
          total = fmaf(scale[2 * band + i / 2], sum[i], total);
        }
      }
    }
  }
}

}  // namespace structattn::STRUCTATTN_CUDA_NAMESPACE

#endif  // STRUCTATTN_KERNELS_LINEAR_INT8_TILE_CUH_
