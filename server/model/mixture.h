// A layer's MLP as a mixture of experts, on the CPU: the router chooses experts for each row, each
// expert multiplies the rows that chose it, and their outputs are summed per row. Only the experts
// that some row chose are read. It knows nothing of the rest of the layer.
#ifndef STRUCTATTN_SERVER_MODEL_MIXTURE_H_
#define STRUCTATTN_SERVER_MODEL_MIXTURE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/context.h"
#include "kernels/dtype.h"
#include "kernels/experts/experts.h"
#include "kernels/linear/linear.h"
#include "server/model/linear_layer.h"
#include "server/model/model_config.h"

namespace structattn {

struct ExpertWeights {
  LinearLayer gate_up;  // gate and up stacked
  LinearLayer down;
};

struct MixtureWeights {
  LinearLayer router;  // A row for each expert, and behind them that of the shared expert's gate.
  std::vector<ExpertWeights> experts;
  std::optional<ExpertWeights> shared;  // Of every row.
};

class MixtureRunner {
 public:
  // `shape` outlives the runner. `dtype`: of the inputs.
  MixtureRunner(const MixtureConfig& shape, int64_t hidden_size, DType dtype);

  // Makes room for so many rows.
  void Reserve(int64_t rows);

  // hidden += mixture(normed). normed [>= rows, hidden] of the dtype, hidden [>= rows, hidden]
  // float.
  struct Operands {
    const at::Tensor& normed;
    at::Tensor& hidden;
    int64_t rows;
  };
  void Run(const KernelContext& context, const MixtureWeights& weights, const Operands& operands);

 private:
  void Route(const KernelContext& context, const MixtureWeights& weights, const Operands& operands);
  void RunExperts(const KernelContext& context, const MixtureWeights& weights,
                  const Operands& operands);

  const MixtureConfig& shape_;
  const int64_t hidden_size_;
  const DType dtype_;
  at::Tensor logits_;   // [rows, experts, and one with a shared expert] float.
  at::Tensor ids_;      // [rows, chosen] int32.
  at::Tensor weights_;  // [rows, chosen] float.
  ExpertPairs pairs_;
  at::Tensor gathered_;                 // [pairs, hidden] dtype.
  at::Tensor gate_up_;                  // [pairs, 2 expert_size] float.
  at::Tensor activated_;                // [pairs, expert_size] dtype.
  at::Tensor outputs_;                  // [pairs, hidden] float.
  at::Tensor shared_gate_up_;           // [rows, 2 shared_expert_size] float.
  at::Tensor shared_activated_;         // [rows, shared_expert_size] dtype.
  at::Tensor shared_output_;            // [rows, hidden] float.
  std::vector<LinearParams> products_;  // Of one call of kernels/linear.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_MIXTURE_H_
