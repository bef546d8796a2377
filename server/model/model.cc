// See model.h: opens and checks the checkpoint, chooses device and dtype, loads the weights.
#include "server/model/model.h"

#include <ATen/Parallel.h>

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/attention/attention.h"
#include "server/model/checkpoint.h"
#include "server/model/device.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"
#include "server/model/transformer.h"

namespace structattn {
namespace {

std::unique_ptr<Model> MakeModel(Checkpoint& checkpoint, const LoadOptions& options,
                                 const Device& device, DType dtype) {
  // Our kernels bring their own threads; LibTorch's would only stand in their way.
  at::set_num_threads(1);
  const ModelConfig& config = checkpoint.config();
  auto transformer =
      std::make_unique<Transformer>(config,
                                    TransformerOptions{.dtype = dtype,
                                                       .quantization = options.quantization,
                                                       .device = device,
                                                       .step_graphs = options.cuda_graphs},
                                    std::make_unique<ThreadPool>(options.threads));
  transformer->Load(checkpoint, options.progress);
  return std::make_unique<Model>(Model{.config = config,
                                       .dtype = dtype,
                                       .weight_format = transformer->weights().format,
                                       .linear_bytes = transformer->weights().linear_bytes,
                                       .device = device,
                                       .digest = checkpoint.digest(),
                                       .kernel = std::string(AttentionKernelName(device.kind)),
                                       .parameters = checkpoint.parameters(),
                                       .tokenizer = checkpoint.TakeTokenizer(),
                                       .decoder = std::move(transformer)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& path,
                                                 const LoadOptions& options) {
  STRUCTATTN_ASSIGN_OR_RETURN(const Device device, ChooseDevice(options.device));
  STRUCTATTN_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(path));
  const DType dtype = options.dtype.value_or(checkpoint->config().dtype);
  const absl::Status runs = CheckShape(device, checkpoint->config(), dtype);
  if (!runs.ok()) return WithPrefix(path, runs);
  try {
    return MakeModel(*checkpoint, options, device, dtype);
  } catch (const std::exception& error) {  // LibTorch: out of memory, a failed CUDA call.
    return absl::InternalError(absl::StrCat(path, ": ", error.what()));
  }
}

}  // namespace structattn
