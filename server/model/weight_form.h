// In which form a model's matrices are kept and multiplied. Chosen by the operator, carried out by
// LoadWeights; says nothing of activations and KV, whose type is the dtype.
#ifndef STRUCTATTN_SERVER_MODEL_WEIGHT_FORM_H_
#define STRUCTATTN_SERVER_MODEL_WEIGHT_FORM_H_

namespace structattn {

enum class WeightForm {
  kStored,    // GGUF's quantised blocks as they are, on CPU; everything else, and CUDA: kExpanded.
  kExpanded,  // Numbers of the dtype.
  // Rounded to 8 bits, with a scale for every 32 inputs of an output (GGML's Q8_0), but for the
  // embedding's table. On CUDA, matrices that do not fit (FitsInt8) stay kExpanded.
  kInt8,
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_WEIGHT_FORM_H_
