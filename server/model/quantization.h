// How the matrices of a model are kept and multiplied. The operator chooses, LoadWeights carries it
// out. It says nothing of activations and KV, whose type is the dtype.
#ifndef STRUCTATTN_SERVER_MODEL_QUANTIZATION_H_
#define STRUCTATTN_SERVER_MODEL_QUANTIZATION_H_

namespace structattn {

enum class Quantization {
  kNone,  // Matrices are expanded to numbers of the dtype.
  // On CPU, GGUF's quant blocks stay as they are, and so do the integers of a quantised folder that
  // quant blocks hold; all else, and CUDA, is as kNone.
  kStored,
  // Matrices are rounded to 8 bits, with a scale for every 32 inputs of an output (GGML's Q8_0);
  // the embedding's table is not. On CUDA, matrices that do not fit (FitsInt8) are as kNone.
  kInt8,
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_QUANTIZATION_H_
