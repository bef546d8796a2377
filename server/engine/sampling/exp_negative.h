// e^x for x <= 0 at the speed of SIMD, for sums over a row of the vocabulary. The files that
// include it are compiled with -fno-trapping-math, without which the compiler does not use SIMD.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_EXP_NEGATIVE_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_EXP_NEGATIVE_H_

#include <bit>
#include <cstdint>

namespace structattn::engine {

// e^x for x <= 0, relative error below 2e-7; 0 below -87 (there e^x < 1.7e-38). NaN stays NaN.
// Branch-free: x = n ln 2 + r with n rounded by the magic number 1.5 x 2^23, e^r by its Taylor
// polynomial of degree 7 (|r| <= 0.35, remainder 5e-9), 2^n by the exponent bits.
inline float ExpNegative(float x) {
  constexpr float kMagic = 12582912.0f;
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693145752f;
  constexpr float kLn2Low = 1.42860677e-6f;
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * kLog2E + kMagic;
  const float n = shifted - kMagic;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float result = p * std::bit_cast<float>(exponent);
  return x < -87.0f ? 0.0f : result;
}

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_EXP_NEGATIVE_H_
