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

std::unique_ptr<Model> MakeModel(const OpenedModel& opened, const LoadOptions& options) {
  Checkpoint& checkpoint = *opened.checkpoint;
  // Our kernels bring their own threads; LibTorch's would only stand in their way.
  at::set_num_threads(1);
  const ModelConfig& config = checkpoint.config();
  auto transformer =
      std::make_unique<Transformer>(config,
                                    TransformerOptions{.dtype = opened.dtype,
                                                       .quantization = options.quantization,
                                                       .device = opened.device,
                                                       .step_graphs = options.cuda_graphs},
                                    std::make_unique<ThreadPool>(options.threads));
  transformer->Load(checkpoint, options.progress);
  return std::make_unique<Model>(
      Model{.config = config,
            .dtype = opened.dtype,
            .weight_format = transformer->weights().format,
            .linear_bytes = transformer->weights().linear_bytes,
            .device = opened.device,
            .digest = checkpoint.digest(),
            .weights_digest = transformer->weights().digest,
            .kernel = std::string(AttentionKernelName(opened.device.kind)),
            .parameters = checkpoint.parameters(),
            .tokenizer = checkpoint.TakeTokenizer(),
            .decoder = std::move(transformer)});
}

}  // namespace

absl::StatusOr<OpenedModel> OpenModel(const std::string& path, const LoadOptions& options) {
  OpenedModel opened{.path = path, .checkpoint = {}, .device = {}, .dtype = {}};
  STRUCTATTN_ASSIGN_OR_RETURN(opened.device, ChooseDevice(options.device));
  STRUCTATTN_ASSIGN_OR_RETURN(opened.checkpoint, Checkpoint::Open(path));
  opened.dtype = options.dtype.value_or(opened.checkpoint->config().dtype);
  const absl::Status runs = CheckShape(opened.device, opened.checkpoint->config(), opened.dtype);
  if (!runs.ok()) return WithPrefix(path, runs);
  return opened;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const OpenedModel& opened,
                                                 const LoadOptions& options) {
  try {
    return MakeModel(opened, options);
  } catch (const std::exception& error) {  // LibTorch: out of memory, a failed CUDA call.
    return absl::InternalError(absl::StrCat(opened.path, ": ", error.what()));
  }
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& path,
                                                 const LoadOptions& options) {
  STRUCTATTN_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(path, options));
  return LoadModel(opened, options);
}

}  // namespace structattn
