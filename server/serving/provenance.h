// What made an answer: enough to make it again. Every protocol shows the same facts.
#ifndef STRUCTATTN_SERVER_SERVING_PROVENANCE_H_
#define STRUCTATTN_SERVER_SERVING_PROVENANCE_H_

#include <cstdint>
#include <string>

#include "kernels/attention/structure.h"
#include "server/engine/served_model.h"

namespace structattn::serving {

struct Provenance {
  std::string model;             // The name that it is served under.
  std::string model_digest;      // Checkpoint::digest.
  std::string weights_digest;    // Model::weights_digest.
  std::string structure_digest;  // StructureDigest of the prompt; empty when none was encoded.
  std::string dtype;             // The dtype of activations and KV.
  std::string weight_format;     // What the matrices hold.
  std::string device;            // cpu or cuda:N.
  std::string kernel;            // The attention kernel and its instruction set.
  uint64_t seed = 0;
  std::string version;  // The version of structattn.
};

// `structure`: of the prompt, or null.
Provenance MakeProvenance(const engine::ServedModel& served, const Structure* structure,
                          uint64_t seed);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_PROVENANCE_H_
