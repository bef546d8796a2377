// Prints what the emulator's matrix instructions do with numbered elements, for layout_test.py.
//   load plain|transposed: the element, as row * 8 + column, that each lane, register and half
//   gets. multiply: the c of every lane, for each element of a (by lane, register and half) that is
//   1 while the others are 0, with b numbered by lane * 4 + register * 2 + half.
// It judges nothing itself.
#include <array>
#include <cstdio>
#include <vector>

#include "tests/simt/fragments.h"

namespace structattn::simt {
namespace {

uint32_t Pair(float low, float high) {
  return FromFloat<Float16>(low).bits | uint32_t{FromFloat<Float16>(high).bits} << 16;
}

void PrintLoad(bool transposed) {
  std::array<Row, kLanes> rows;
  for (int row = 0; row < kLanes; ++row) {
    for (int column = 0; column < 8; ++column) {
      rows[row][column] = static_cast<uint16_t>(row * 8 + column);
    }
  }
  std::array<MatrixLoad, kLanes> loads = {};
  std::array<MatrixLoad*, kLanes> lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = &loads[lane];
  Distribute(rows, transposed, lanes);
  std::printf("load %s", transposed ? "transposed" : "plain");
  for (const MatrixLoad& load : loads) {
    for (uint32_t pair : load.matrices) std::printf(" %u %u", pair & 0xffff, pair >> 16);
  }
  std::printf("\n");
}

void PrintMultiply(int element) {
  struct Lane {
    float c[4] = {};
    uint32_t a[4] = {};
  };
  std::vector<Lane> lanes(kLanes);
  lanes[element / 8].a[element / 2 % 4] = element % 2 == 0 ? Pair(1.0f, 0.0f) : Pair(0.0f, 1.0f);
  std::vector<Multiplication> calls;
  for (int lane = 0; lane < kLanes; ++lane) {
    const float b = static_cast<float>(lane * 4);
    calls.push_back({lanes[lane].c, lanes[lane].a, Pair(b, b + 1), Pair(b + 2, b + 3)});
  }
  std::array<Multiplication*, kLanes> pointers;
  for (int lane = 0; lane < kLanes; ++lane) pointers[lane] = &calls[lane];
  MultiplyAccumulate<Float16>(pointers);
  std::printf("multiply");
  for (const Lane& lane : lanes) {
    for (float c : lane.c) std::printf(" %d", static_cast<int>(c));
  }
  std::printf("\n");
}

}  // namespace
}  // namespace structattn::simt

int main() {
  structattn::simt::PrintLoad(false);
  structattn::simt::PrintLoad(true);
  for (int element = 0; element < 256; ++element) structattn::simt::PrintMultiply(element);
}
