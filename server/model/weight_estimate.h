// How much memory the weights of a checkpoint will take, and in which formats, before a byte of
// them is read. What holds once they are loaded stands in TransformerWeights.
#ifndef STRUCTATTN_SERVER_MODEL_WEIGHT_ESTIMATE_H_
#define STRUCTATTN_SERVER_MODEL_WEIGHT_ESTIMATE_H_

#include <cstdint>
#include <string>

#include "kernels/context.h"
#include "kernels/dtype.h"
#include "server/model/checkpoint.h"
#include "server/model/quantization.h"

namespace structattn {

struct WeightEstimate {
  int64_t bytes = 0;
  std::string format;  // As TransformerWeights::format has it.
};

struct WeightForm {
  DType dtype = DType::kFloat32;
  Quantization quantization = Quantization::kStored;
  DeviceKind device = DeviceKind::kCpu;
};

WeightEstimate EstimateWeights(const Checkpoint& checkpoint, const WeightForm& form);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_WEIGHT_ESTIMATE_H_
