// The one decoder: LLaMA 2/3, Qwen2/2.5 and Qwen3, told apart by ModelConfig's fields only.
// Built by LoadModel; run by the engine thread through the Decoder interface.
#ifndef STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_
#define STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "server/model/checkpoint.h"
#include "server/model/decoder.h"
#include "server/model/linear_layer.h"
#include "server/model/model_config.h"

namespace structattn {

struct LayerWeights {
  at::Tensor attention_norm;  // [hidden] float; before attention.
  at::Tensor query_norm;      // [head_dim] float, or undefined.
  at::Tensor key_norm;        // Likewise.
  LinearLayer qkv;            // q, k and v stacked.
  LinearLayer attention_output;
  at::Tensor mlp_norm;  // [hidden] float; before the MLP.
  LinearLayer gate_up;  // gate and up stacked.
  LinearLayer mlp_down;
};

struct TransformerWeights {
  at::Tensor embedding;  // [vocab, hidden] of the model's dtype.
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [hidden] float.
  LinearLayer output;     // [vocab, hidden]; a packed copy of the embedding when tied.
};

// Reads every tensor of the checkpoint into `dtype` on the context's device. `progress` hears the
// share of layers done; may be empty.
TransformerWeights LoadWeights(const Checkpoint& checkpoint, DType dtype,
                               const KernelContext& context,
                               const std::function<void(double)>& progress);

class Transformer final : public Decoder {
 public:
  // `threads` CPU threads, the caller of Forward included.
  Transformer(const ModelConfig& config, DType dtype, std::unique_ptr<ThreadPool> pool,
              DeviceKind device);

  // Once, before the first Forward.
  void Load(const Checkpoint& checkpoint, const std::function<void(double)>& progress);

  void Forward(const StepBatch& batch, std::span<const KvLayerView> kv,
               std::span<float> logits) override;
  int64_t vocabulary_size() const override { return config_.vocab_size; }

 private:
  // Intermediate tensors of one step, kept and grown from step to step. [rows, ...].
  struct Workspace {
    int64_t rows = 0;
    at::Tensor hidden;     // [rows, hidden] float: the residual stream.
    at::Tensor normed;     // [rows, hidden] dtype.
    at::Tensor qkv;        // [rows, (heads + 2 kv_heads) head_dim] float.
    at::Tensor query;      // [rows, heads, head_dim] float.
    at::Tensor attention;  // [rows, heads, head_dim] dtype.
    at::Tensor gate_up;    // [rows, 2 intermediate] float.
    at::Tensor activated;  // [rows, intermediate] dtype.
  };
  // The batch's arrays where the kernels can read them.
  struct StepInputs;

  void Reserve(int64_t rows);
  StepInputs Prepare(const StepBatch& batch) const;
  void RunAttention(const LayerWeights& layer, const KvLayerView& kv, const StepInputs& inputs);
  void RunMlp(const LayerWeights& layer, int64_t rows);
  void Normalize(const at::Tensor& input, const at::Tensor& weight, at::Tensor& output,
                 int64_t rows) const;
  void ComputeLogits(const StepInputs& inputs, std::span<float> logits);

  const ModelConfig config_;
  const DType dtype_;
  const std::unique_ptr<ThreadPool> pool_;
  KernelContext context_;
  const std::vector<float> inverse_frequencies_;
  TransformerWeights weights_;
  Workspace workspace_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TRANSFORMER_H_
