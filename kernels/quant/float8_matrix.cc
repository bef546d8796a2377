// Numbers of OCP's 8-bit floating point specification, E4M3. See float8_matrix.h.
#include "kernels/quant/float8_matrix.h"

#include <array>
#include <cmath>
#include <limits>

namespace structattn {

float FromFloat8(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  float magnitude = std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) {
    magnitude = static_cast<float>(mantissa) * 0x1p-9f;
  } else if ((bits & 127) != 127) {
    magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  }
  return bits & 128 ? -magnitude : magnitude;
}

void Float8Matrix::ExpandRow(int64_t output, float* values) const {
  static const std::array<float, 256> kNumbers = [] {
    std::array<float, 256> numbers;
    for (int bits = 0; bits < 256; ++bits) numbers[bits] = FromFloat8(static_cast<uint8_t>(bits));
    return numbers;
  }();
  const int64_t row_scales = (inputs + inputs_per_scale - 1) / inputs_per_scale;
  const float* scale = scales.data() + output / outputs_per_scale * row_scales;
  const uint8_t* row = data + output * inputs;
  for (int64_t input = 0; input < inputs; ++input) {
    values[input] = scale[input / inputs_per_scale] * kNumbers[row[input]];
  }
}

}  // namespace structattn
