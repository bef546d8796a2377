// Implements served_model.h.
#include "server/engine/served_model.h"

#include <utility>

#include "server/engine/cache/kv_cache.h"
#include "server/model/status_macros.h"

namespace structattn::engine {

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelSource& source,
                                                             const LoadOptions& load_options,
                                                             const EngineOptions& engine_options) {
  auto served = std::make_unique<ServedModel>();
  served->name = source.name;
  STRUCTATTN_ASSIGN_OR_RETURN(served->model, LoadModel(source.path, load_options));
  const Model& model = *served->model;
  STRUCTATTN_ASSIGN_OR_RETURN(KvCache kv,
                              AllocateKvCache({.layers = model.config.layers,
                                               .kv_heads = model.config.kv_heads,
                                               .head_dim = model.config.head_dim,
                                               .block_size = engine_options.block_size,
                                               .dtype = model.dtype,
                                               .device = model.device,
                                               .memory_bytes = engine_options.kv_memory_bytes}));
  served->engine = std::make_unique<Engine>(served->model.get(), std::move(kv), engine_options);
  return served;
}

}  // namespace structattn::engine
