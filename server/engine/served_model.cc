// Implements served_model.h.
#include "server/engine/served_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/machine_limits.h"
#include "server/model/status_macros.h"

namespace structattn::engine {

absl::StatusOr<PlannedModel> PlanServedModel(const std::string& path,
                                             const LoadOptions& load_options,
                                             const EngineOptions& engine_options) {
  PlannedModel planned;
  STRUCTATTN_ASSIGN_OR_RETURN(planned.opened, OpenModel(path, load_options));
  const OpenedModel& opened = planned.opened;
  absl::StatusOr<MemoryPlan> memory = PlanMemory(*opened.checkpoint,
                                                 {.dtype = opened.dtype,
                                                  .quantization = load_options.quantization,
                                                  .device = opened.device.kind},
                                                 engine_options, AvailableMemoryBytes());
  if (!memory.ok()) {
    return absl::Status(memory.status().code(),
                        absl::StrCat(path, ": ", memory.status().message()));
  }
  planned.memory = *std::move(memory);
  return planned;
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelSource& source,
                                                             const LoadOptions& load_options,
                                                             const EngineOptions& engine_options) {
  auto served = std::make_unique<ServedModel>();
  served->name = source.name;
  STRUCTATTN_ASSIGN_OR_RETURN(const PlannedModel planned,
                              PlanServedModel(source.path, load_options, engine_options));
  served->memory = planned.memory;
  STRUCTATTN_ASSIGN_OR_RETURN(served->model, LoadModel(planned.opened, load_options));
  STRUCTATTN_ASSIGN_OR_RETURN(
      const KvShape kv,
      served->model->decoder->AllocateKv(planned.memory.kv_bytes, engine_options.block_size));
  served->engine = std::make_unique<Engine>(served->model.get(), kv, engine_options);
  return served;
}

}  // namespace structattn::engine
