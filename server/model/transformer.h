// The one decoder for LLaMA 2/3, Qwen2/2.5 and Qwen3. ModelConfig's fields alone tell them apart;
// no code here asks for the architecture.
#ifndef STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_
#define STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "server/model/checkpoint.h"
#include "server/model/decoder.h"
#include "server/model/kv_cache.h"
#include "server/model/linear_layer.h"
#include "server/model/mixture.h"
#include "server/model/model_config.h"
#include "server/model/padded_heads.h"
#include "server/model/quantization.h"
#include "server/model/step_graphs.h"
#include "server/model/step_inputs.h"

namespace structattn {

struct LayerWeights {
  at::Tensor attention_norm;  // [hidden] float, before attention
  at::Tensor query_norm;      // [head_dim] float, or undefined
  at::Tensor key_norm;        // [head_dim] float, or undefined
  LinearLayer qkv;            // q, k and v stacked
  LinearLayer attention_output;
  at::Tensor mlp_norm;  // [hidden] float, before the MLP
  LinearLayer gate_up;  // gate and up stacked
  LinearLayer mlp_down;
  std::optional<MixtureWeights> mixture;  // Instead of gate_up and mlp_down.
};

struct TransformerWeights {
  at::Tensor embedding;  // [vocab, hidden] in the model's dtype
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [hidden] float
  LinearLayer output;     // [vocab, hidden]; the embedding's when tied
  // The format of the matrices that are multiplied, "bfloat16", "int8" or "Q4_1+Q8_0", and their
  // bytes, which a step with logits reads; of a mixture's experts, it reads those that are chosen.
  std::string format;
  int64_t linear_bytes = 0;
  std::string digest;  // WeightsDigest of the checkpoint's tensors in the order of the table.
};

// How a model is run.
struct TransformerOptions {
  DType dtype = DType::kFloat32;
  Quantization quantization = Quantization::kStored;
  Device device = {};
  bool step_graphs = false;  // Records decoding steps and runs them again (StepGraphs), but on CPU.
};

// Reads every tensor of the checkpoint into the options' dtype and form on their device. `progress`
// is called with the share of tensors that are done, and may be empty.
TransformerWeights LoadWeights(const Checkpoint& checkpoint, const TransformerOptions& options,
                               const KernelContext& context,
                               const std::function<void(double)>& progress);

class Transformer final : public Decoder {
 public:
  // `pool` has the CPU threads, with the caller of Forward among them.
  Transformer(const ModelConfig& config, const TransformerOptions& options,
              std::unique_ptr<ThreadPool> pool);

  // Loads the weights, once and before the first Forward.
  void Load(const Checkpoint& checkpoint, const std::function<void(double)>& progress);

  absl::StatusOr<KvShape> AllocateKv(int64_t bytes, int32_t block_size) override;
  void Forward(const StepBatch& batch, std::span<float> logits) override;
  void Logits(std::span<const int32_t> rows, std::span<float> logits) override;
  int64_t vocabulary_size() const override { return config_.vocab_size; }
  Tiling tiling() const override;
  int32_t dynamic_rope_length() const override { return DynamicRopeLength(config_.rope.scaling); }
  bool usable() const override;

  const KvCache& kv() const { return kv_; }
  const TransformerWeights& weights() const { return weights_; }
  const StepGraphs& graphs() const { return graphs_; }

 private:
  // The intermediate tensors of one step, which are kept and grow from step to step.
  struct Scratch {
    int64_t rows = 0;
    int64_t logit_rows = 0;
    int64_t partials = 0;
    at::Tensor hidden;              // [rows, hidden] float: the residual stream.
    at::Tensor normed;              // [rows, hidden] dtype.
    at::Tensor projected;           // [rows, (heads + 2 kv_heads) head_dim] float.
    at::Tensor qkv;                 // The same, padded.
    at::Tensor query;               // [rows, heads, padded head_dim] float.
    at::Tensor attention;           // [rows, heads, padded head_dim] dtype.
    at::Tensor attended;            // The same, without padding.
    at::Tensor gate_up;             // [rows, 2 intermediate] float.
    at::Tensor activated;           // [rows, intermediate] dtype.
    at::Tensor linear;              // [rows, hidden] float: LinearLayer::Operands::scratch.
    at::Tensor selected;            // [logit_rows, hidden] float.
    at::Tensor logits;              // [logit_rows, vocab] float; not on CPU.
    at::Tensor attention_partials;  // PartialFloats(partials, heads, head_dim) float.
  };

  void Reserve(const StepShape& shape);
  void ReserveRows(int64_t rows);
  // Writes the logits [logit rows, vocab] to `logits` on the device.
  void RunStep(const StepInputs& inputs, at::Tensor& logits);
  void RunAttention(size_t layer, const StepInputs& inputs);
  void RunMlp(const LayerWeights& layer, at::Tensor& hidden, int64_t rows);
  void Normalize(const at::Tensor& input, const at::Tensor& weight, at::Tensor& output,
                 int64_t rows) const;
  // The kernels can read `rows` where they lie.
  void FinishLogitRows(std::span<const int32_t> rows, at::Tensor& logits);

  const ModelConfig config_;
  const TransformerOptions options_;
  const PaddedHeads padding_;
  const std::unique_ptr<ThreadPool> pool_;
  const std::optional<c10::Stream> stream_;  // Only on CUDA.
  KernelContext context_;
  TransformerWeights weights_;
  KvCache kv_;
  StepUploader uploader_;
  Scratch scratch_;
  std::optional<MixtureRunner> mixture_;  // Only with a mixture.
  StepGraphs graphs_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_
