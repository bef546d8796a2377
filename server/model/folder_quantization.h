// What `quantization_config` of config.json says of a folder's matrices: form, bits, and how many
// values share a scale. Reads no tensor.
#ifndef STRUCTATTN_SERVER_MODEL_FOLDER_QUANTIZATION_H_
#define STRUCTATTN_SERVER_MODEL_FOLDER_QUANTIZATION_H_

#include <cstdint>
#include <string>

namespace structattn {

// Which tensors a matrix is stored in, NAME being its module.
enum class QuantizedForm {
  kGptq,            // NAME.qweight, .qzeros, .scales, .g_idx
  kAwq,             // NAME.qweight, .qzeros, .scales
  kPackedIntegers,  // NAME.weight_packed, .weight_scale, .weight_shape, .weight_zero_point
  kIntegers,        // NAME.weight (I8), .weight_scale, .weight_zero_point
  kFloat8,          // NAME.weight (F8_E4M3), .weight_scale_inv or .weight_scale
};

// How many outputs and inputs share a scale.
struct ScaleTile {
  static constexpr int64_t kAll = 0;
  static constexpr int64_t kMost = int64_t{1} << 20;

  int64_t outputs = 1;
  int64_t inputs = kAll;
};

struct FolderQuantization {
  QuantizedForm form = QuantizedForm::kGptq;
  int bits = 4;
  ScaleTile tile;
  bool zeros_less_one = false;   // GPTQ's first format stores zero - 1.
  bool has_zeros = true;         // Else a code's zero is half of its range.
  bool needs_input_map = false;  // Which input has which scale is stored, and may be in any order.
  std::string name;              // "gptq_4bit_g128", for provenance.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_FOLDER_QUANTIZATION_H_
