// The tile registers of AMX, one function per instruction. All have rows of 64 bytes. The functions
// are assembly, because the intrinsics of GCC 12 do not say that they touch memory; nothing here
// may run on a CPU for which AmxUsable() is false.
#ifndef STRUCTATTN_KERNELS_AMX_H_
#define STRUCTATTN_KERNELS_AMX_H_

#include <cstdint>

namespace structattn {

// Whether this CPU multiplies tiles of bfloat16 and the operating system lets this process do it.
bool AmxUsable();

// Tiles 0 to 7. All strides are in bytes.
struct AmxTiles {
  static constexpr int kRows = 16;

  // Begins a thread's use of tiles, which Release ends; no context switch carries them afterwards.
  // Tiles 0, 1 and 4 get `first` rows, tiles 2, 3 and 5 `second`, 1 to 16 each; the others have 16.
  static void Configure(int first = kRows, int second = kRows) {
    struct alignas(64) Config {
      uint8_t palette;
      uint8_t start_row;
      uint8_t reserved[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    };
    const auto a = static_cast<uint8_t>(first);
    const auto b = static_cast<uint8_t>(second);
    const Config config = {.palette = 1,
                           .start_row = 0,
                           .reserved = {},
                           .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                           .rows = {a, a, b, b, a, b, kRows, kRows}};
    static_assert(sizeof(Config) == 64);
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  static void Release() { asm volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }

  // sums[m][n] += over k of the pairs rows[m][k] times columns[k][n].
  template <int kSums, int kRows, int kColumns>
  static void MultiplyAdd() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                 :
                 : "i"(kSums), "i"(kRows), "i"(kColumns));
  }
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_AMX_H_
