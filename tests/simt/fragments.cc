// See fragments.h: fragments become matrices, and matrices fragments.
#include "tests/simt/fragments.h"

namespace structattn::simt {
namespace {

template <typename T>
void Unpack(uint32_t fragment, float* low, float* high) {
  *low = ToFloat(T{static_cast<uint16_t>(fragment)});
  *high = ToFloat(T{static_cast<uint16_t>(fragment >> 16)});
}

uint32_t Pack(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

}  // namespace

void Distribute(const std::array<Row, kLanes>& rows, bool transposed,
                const std::array<MatrixLoad*, kLanes>& lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4;
    const int column = lane % 4 * 2;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const Row* m = &rows[8 * matrix];
      lanes[lane]->matrices[matrix] = transposed ? Pack(m[column][row], m[column + 1][row])
                                                 : Pack(m[row][column], m[row][column + 1]);
    }
  }
}

template <typename T>
void MultiplyAccumulate(const std::array<Multiplication*, kLanes>& lanes) {
  float a[16][16];
  float b[16][8];
  float c[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Multiplication& m = *lanes[lane];
    const int g = lane / 4;
    const int t = lane % 4 * 2;
    Unpack<T>(m.a[0], &a[g][t], &a[g][t + 1]);
    Unpack<T>(m.a[1], &a[g + 8][t], &a[g + 8][t + 1]);
    Unpack<T>(m.a[2], &a[g][t + 8], &a[g][t + 9]);
    Unpack<T>(m.a[3], &a[g + 8][t + 8], &a[g + 8][t + 9]);
    Unpack<T>(m.b0, &b[t][g], &b[t + 1][g]);
    Unpack<T>(m.b1, &b[t + 8][g], &b[t + 9][g]);
    c[g][t] = m.c[0];
    c[g][t + 1] = m.c[1];
    c[g + 8][t] = m.c[2];
    c[g + 8][t + 1] = m.c[3];
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    float* const out = lanes[lane]->c;
    const int g = lane / 4;
    const int t = lane % 4 * 2;
    out[0] = c[g][t];
    out[1] = c[g][t + 1];
    out[2] = c[g + 8][t];
    out[3] = c[g + 8][t + 1];
  }
}

template void MultiplyAccumulate<Bfloat16>(const std::array<Multiplication*, kLanes>&);
template void MultiplyAccumulate<Float16>(const std::array<Multiplication*, kLanes>&);

}  // namespace structattn::simt
