// What a warp's matrix instructions do, by the layouts of the PTX ISA ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "ldmatrix"). All lanes' arguments are there at once; no
// memory is touched.
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

using Row = std::array<uint16_t, 8>;  // A row of an 8 x 8 matrix of 16-bit elements.

// Gives the 32 lanes their elements of `rows`, which are 8 rows of each of four matrices.
void Distribute(const std::array<Row, kLanes>& rows, bool transposed,
                const std::array<MatrixLoad*, kLanes>& lanes);

// c += a b. A product of two 16-bit elements is exact in float, and each element of c takes its 16
// products one after another, by ascending k, with each sum rounded to float. Devices add several
// at a time in an order and with a rounding that are not documented, so a test's tolerance must
// allow for any order.
template <typename T>
void MultiplyAccumulate(const std::array<Multiplication*, kLanes>& lanes);

extern template void MultiplyAccumulate<Bfloat16>(const std::array<Multiplication*, kLanes>&);
extern template void MultiplyAccumulate<Float16>(const std::array<Multiplication*, kLanes>&);

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_FRAGMENTS_H_
