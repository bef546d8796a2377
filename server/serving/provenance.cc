// Implements provenance.h.
#include "server/serving/provenance.h"

#include "server/engine/prompt/prompt.h"
#include "server/model/device_name.h"

namespace structattn::serving {

Provenance MakeProvenance(const engine::ServedModel& served, const Structure* structure,
                          uint64_t seed) {
  const Model& model = *served.model;
  return {.model = served.name,
          .model_digest = model.digest,
          .weights_digest = model.weights_digest,
          .structure_digest = structure == nullptr ? "" : engine::StructureDigest(*structure),
          .dtype = std::string(Name(model.dtype)),
          .weight_format = model.weight_format,
          .device = Name(model.device),
          .kernel = model.kernel,
          .seed = seed,
          .version = STRUCTATTN_VERSION};
}

}  // namespace structattn::serving
