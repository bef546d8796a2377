// What a warp's matrix instructions do, by the layouts of the PTX ISA ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "ldmatrix"). Called by the last lane to arrive.
#ifndef STRUCTATTN_TESTS_SIMT_FRAGMENTS_H_
#define STRUCTATTN_TESTS_SIMT_FRAGMENTS_H_

#include <array>
#include <cstdint>

#include "kernels/dtype.h"
#include "tests/simt/context.h"

namespace structattn::simt {

// One lane's arguments and results.
struct MatrixLoad {
  int offset;
  std::array<uint32_t, 4> matrices;
};
struct Multiplication {
  float* c;           // [4]
  const uint32_t* a;  // [4]
  uint32_t b0;
  uint32_t b1;
};

using Row = std::array<uint16_t, 8>;  // Of an 8 x 8 matrix of 16-bit elements.

// Hands out `rows`, 8 of each of the four matrices, to the 32 lanes.
void Distribute(const std::array<Row, kLanes>& rows, bool transposed,
                const std::array<MatrixLoad*, kLanes>& lanes);

// c += a b. A product of two 16-bit elements is exact in float; each element of c takes its 16
// products one after another, by ascending k, each sum rounded to float. (Devices sum in groups
// whose order and rounding are not documented: a test's tolerance must allow for any order.)
template <typename T>
void MultiplyAccumulate(const std::array<Multiplication*, kLanes>& lanes);

extern template void MultiplyAccumulate<Bfloat16>(const std::array<Multiplication*, kLanes>&);
extern template void MultiplyAccumulate<Float16>(const std::array<Multiplication*, kLanes>&);

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_FRAGMENTS_H_
