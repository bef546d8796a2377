// Implements provenance.h.
#include "server/serving/provenance.h"

#include "server/engine/prompt/prompt.h"

namespace structattn::serving {

std::string DeviceName(const Model& model) {
  switch (model.device) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda:0";
    case DeviceKind::kEmulated:
      return "emulated";
  }
  return "";
}

Provenance MakeProvenance(const engine::ServedModel& served, const Structure* structure,
                          uint64_t seed) {
  const Model& model = *served.model;
  return {.model = served.name,
          .model_digest = model.digest,
          .structure_digest = structure == nullptr ? "" : engine::StructureDigest(*structure),
          .dtype = std::string(Name(model.dtype)),
          .weight_format = model.weight_format,
          .device = DeviceName(model),
          .kernel = model.kernel,
          .seed = seed,
          .version = STRUCTATTN_VERSION};
}

}  // namespace structattn::serving
