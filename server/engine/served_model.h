// A model and the engine that serves it, under the name that clients use.
// Declares how it is loaded; a program that loads links structattn_transformer as well.
#ifndef STRUCTATTN_SERVER_ENGINE_SERVED_MODEL_H_
#define STRUCTATTN_SERVER_ENGINE_SERVED_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/engine/memory_plan.h"
#include "server/model/model.h"

namespace structattn::engine {

struct ServedModel {
  std::string name;
  MemoryPlan memory;
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;  // Uses `model`: declared after it, so destroyed before it.
};

struct ModelSource {
  std::string name;  // What clients call it.
  std::string path;  // A Hugging Face directory or a GGUF file.
};

// Opens and checks the files and plans the memory of the model.
struct PlannedModel {
  OpenedModel opened;
  MemoryPlan memory;
};
absl::StatusOr<PlannedModel> PlanServedModel(const std::string& path,
                                             const LoadOptions& load_options,
                                             const EngineOptions& engine_options);

// Loads the files, allocates KV memory and starts the engine. FAILED_PRECONDITION when the files
// are refused, the memory does not fit, or KV memory holds not even one block.
absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelSource& source,
                                                             const LoadOptions& load_options,
                                                             const EngineOptions& engine_options);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SERVED_MODEL_H_
