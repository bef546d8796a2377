// A loaded model: config, tokenizer, decoder and the facts that every reply names. Immutable but
// for the decoder's workspace.
#ifndef STRUCTATTN_SERVER_MODEL_MODEL_H_
#define STRUCTATTN_SERVER_MODEL_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/context.h"
#include "server/model/checkpoint.h"
#include "server/model/decoder.h"
#include "server/model/model_config.h"
#include "server/model/quantization.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

struct LoadOptions {
  std::optional<DType> dtype;    // Absent: the checkpoint's own.
  std::optional<Device> device;  // Absent: the first GPU when there is one, else the CPU.
  Quantization quantization = Quantization::kStored;
  bool cuda_graphs = false;  // TransformerOptions::step_graphs.
  int threads = 1;           // CPU threads, >= 1.
  // Called now and then while loading with the share done, in [0, 1]. May be empty.
  std::function<void(double)> progress;
};

struct Model {
  ModelConfig config;
  DType dtype;                // Activations, KV, and weights that are not quantized.
  std::string weight_format;  // TransformerWeights::format.
  int64_t linear_bytes = 0;   // TransformerWeights::linear_bytes.
  Device device;
  std::string digest;          // Checkpoint::digest().
  std::string weights_digest;  // TransformerWeights::digest.
  std::string kernel;          // AttentionKernelName().
  int64_t parameters;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Decoder> decoder;
};

// A checkpoint that was opened and checked, and what was chosen for it: ready to be loaded.
struct OpenedModel {
  std::string path;
  std::unique_ptr<Checkpoint> checkpoint;
  Device device;
  DType dtype;
};

absl::StatusOr<OpenedModel> OpenModel(const std::string& path, const LoadOptions& options);

// Loads the weights. `options` are those of OpenModel.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const OpenedModel& opened,
                                                 const LoadOptions& options);

// Both, one after the other.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& path,
                                                 const LoadOptions& options);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_MODEL_H_
