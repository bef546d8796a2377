// The tensors of a model, one row of the table each: Hugging Face's name, GGUF's name, shape and
// the member of the transformer's weights that it becomes (part of). Every checkpoint format and
// the weight loader walk this table; a tensor of a new destination is also placed in weights.cc.
// Reads no file.
#ifndef STRUCTATTN_SERVER_MODEL_TENSOR_TABLE_H_
#define STRUCTATTN_SERVER_MODEL_TENSOR_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/model/model_config.h"

namespace structattn {

// Members of TransformerWeights and, for the tensors of a layer, of LayerWeights.
enum class Destination {
  kEmbedding,
  kAttentionNorm,
  kQueryNorm,
  kKeyNorm,
  kQkv,
  kAttentionOutput,
  kMlpNorm,
  kGateUp,
  kMlpDown,
  kRouter,
  kExpertGateUp,
  kExpertDown,
  kSharedGateUp,
  kSharedDown,
  kFinalNorm,
  kOutput,
};

// A tensor [experts, rows, columns] that holds an expert's matrix in some of its own `rows`, for
// all experts of a layer.
struct ExpertStack {
  std::string name = {};
  int64_t rows = 0;
  int64_t row_begin = 0;  // Of the expert's matrix.
};

struct TensorSpec {
  std::string name;  // In a Hugging Face directory, and of Checkpoint::Read.
  std::string gguf_name;
  int64_t rows = 1;  // A vector has one.
  int64_t columns = 0;
  Destination destination = Destination::kEmbedding;
  int64_t layer = -1;      // -1: of the whole model.
  bool is_bias = false;    // The bias of the matrix before it.
  bool is_rotary = false;  // Its outputs are elements of heads that a rotary embedding turns.
  // Of an expert's matrix: its expert, how many there are, and where a Hugging Face directory may
  // hold it instead. In GGUF, gguf_name is the stack of all experts' matrices.
  int64_t expert = -1;
  int64_t experts = 0;
  ExpertStack stack = {};
};

// What the config asks for, in the order of the forward pass. Neighbours of one layer, one
// destination and one expert are stacked there.
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TENSOR_TABLE_H_
