// Implements served_model.h.
#include "server/engine/served_model.h"

#include "server/model/status_macros.h"

namespace structattn::engine {

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelSource& source,
                                                             const LoadOptions& load_options,
                                                             const EngineOptions& engine_options) {
  auto served = std::make_unique<ServedModel>();
  served->name = source.name;
  STRUCTATTN_ASSIGN_OR_RETURN(served->model, LoadModel(source.path, load_options));
  STRUCTATTN_ASSIGN_OR_RETURN(const KvShape kv,
                              served->model->decoder->AllocateKv(engine_options.kv_memory_bytes,
                                                                 engine_options.block_size));
  served->engine = std::make_unique<Engine>(served->model.get(), kv, engine_options);
  return served;
}

}  // namespace structattn::engine
