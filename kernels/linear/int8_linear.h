// y = x W^T with W in 8 bits: an int8 code per weight and a float16 scale per 32 weights of a row,
// expanded on the way to the tensor cores, so that decoding reads half of what 16-bit weights take.
// Called by server/model for weights that are kept on a device. Never called for the CPU, which
// packs its own weights (linear.h).
//
// Bits of an output depend on its own row and weights only, never on `rows` or on a row's place.
#ifndef STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_H_
#define STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_H_

#include <cstdint>

#include "kernels/context.h"
#include "kernels/dtype.h"

namespace structattn {

inline constexpr int kInt8ScaleInputs = 32;  // Weights of a scale.

inline constexpr int64_t kMostInt8Outputs = int64_t{1} << 20;

struct Int8LinearParams {
  const void* input = nullptr;  // [rows, inputs] of input_dtype, 16-byte aligned.
  DType input_dtype = DType::kFloat32;
  // weight[n][k] = codes[n][k] * scales[n][k / 32]
  const int8_t* codes = nullptr;    // [outputs, inputs], 16-byte aligned.
  const Float16* scales = nullptr;  // [outputs, inputs / 32]
  float* output = nullptr;          // [rows, outputs]
  bool accumulate = false;          // output += instead of =.
  int64_t rows = 0;
  int64_t outputs = 0;  // Up to kMostInt8Outputs.
  int64_t inputs = 0;   // A multiple of 32.
};

void Int8Linear(const KernelContext& context, const Int8LinearParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_LINEAR_INT8_LINEAR_H_
