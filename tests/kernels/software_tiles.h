// AmxTiles in plain C++, as the instruction set's manual defines the instructions, so that the
// kernels for AMX run on CPUs without it. It never executes an instruction of AMX.
#ifndef STRUCTATTN_TESTS_KERNELS_SOFTWARE_TILES_H_
#define STRUCTATTN_TESTS_KERNELS_SOFTWARE_TILES_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace structattn {

struct SoftwareTiles {
  static constexpr int kRows = 16;
  static constexpr int kRowBytes = 64;
  struct Tile {
    alignas(64) char bytes[kRows][kRowBytes];
  };

  static void Configure(int first = kRows, int second = kRows) {
    STRUCTATTN_CHECK(first > 0 && first <= kRows && second > 0 && second <= kRows);
    configured_ = true;
    const int rows[] = {first, first, second, second, first, second, kRows, kRows};
    for (int tile = 0; tile < 8; ++tile) {
      std::memset(&tiles_[tile], 0, sizeof(Tile));
      rows_[tile] = rows[tile];
    }
  }
  static void Release() {
    STRUCTATTN_CHECK(configured_);
    configured_ = false;
  }

  static bool configured() { return configured_; }

  template <int kTile>
  static void Zero() {
    std::memset(&At<kTile>(), 0, sizeof(Tile));
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    for (int r = 0; r < rows_[kTile]; ++r) {
      std::memcpy(At<kTile>().bytes[r], static_cast<const char*>(from) + r * stride, kRowBytes);
    }
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    for (int r = 0; r < rows_[kTile]; ++r) {
      std::memcpy(static_cast<char*>(to) + r * stride, At<kTile>().bytes[r], kRowBytes);
    }
  }

  // Even and odd elements of the pairs are summed separately, then together, then added to the
  // tile. Subnormals count as zero throughout.
  template <int kSums, int kLeft, int kRight>
  static void MultiplyAdd() {
    STRUCTATTN_CHECK(rows_[kSums] == rows_[kLeft] && rows_[kRight] == kRows);
    for (int m = 0; m < rows_[kSums]; ++m) {
      for (int n = 0; n < kRows; ++n) {
        float even = 0.0f;
        float odd = 0.0f;
        for (int k = 0; k < kRows; ++k) {
          even = Add(even, Element<kLeft>(m, 2 * k), Element<kRight>(k, 2 * n));
          odd = Add(odd, Element<kLeft>(m, 2 * k + 1), Element<kRight>(k, 2 * n + 1));
        }
        float sum;
        char* at = At<kSums>().bytes[m] + n * sizeof(float);
        std::memcpy(&sum, at, sizeof(sum));
        sum = Flush(sum) + Flush(even + odd);
        sum = Flush(sum);
        std::memcpy(at, &sum, sizeof(sum));
      }
    }
  }

 private:
  static float Flush(float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
  }
  static float Add(float sum, float a, float b) { return Flush(std::fma(a, b, sum)); }

  template <int kTile>
  static Tile& At() {
    static_assert(kTile >= 0 && kTile < 8);
    STRUCTATTN_CHECK(configured_);
    return tiles_[kTile];
  }
  template <int kTile>
  static float Element(int row, int column) {
    Bfloat16 element;
    std::memcpy(&element, At<kTile>().bytes[row] + column * sizeof(element), sizeof(element));
    return Flush(ToFloat(element));
  }

  static thread_local inline bool configured_ = false;
  static thread_local inline Tile tiles_[8];
  static thread_local inline int rows_[8];
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_SOFTWARE_TILES_H_
