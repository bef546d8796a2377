// Matrices of 8-bit floats with a scale for each tile of outputs and inputs, as FP8 folders store
// them: their values. It multiplies nothing and checks no file.
#ifndef STRUCTATTN_KERNELS_QUANT_FLOAT8_MATRIX_H_
#define STRUCTATTN_KERNELS_QUANT_FLOAT8_MATRIX_H_

#include <cstdint>
#include <vector>

namespace structattn {

// The value of an OCP E4M3 number: a sign, four bits of exponent, three of mantissa; no infinities,
// and all ones is NaN.
float FromFloat8(uint8_t bits);

// Value [output][input] = scale * number, rounded once.
struct Float8Matrix {
  const uint8_t* data = nullptr;  // [outputs][inputs], not owned.
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t outputs_per_scale = 1;
  int64_t inputs_per_scale = 1;
  std::vector<float> scales;  // [tiles of outputs][tiles of inputs]

  // The values of one output, [inputs].
  void ExpandRow(int64_t output, float* values) const;
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_QUANT_FLOAT8_MATRIX_H_
