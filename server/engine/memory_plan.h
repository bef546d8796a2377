// The memory that a model will take, planned before its weights are read: weights, and the keys and
// values that fit beside them. Allocates nothing.
#ifndef STRUCTATTN_SERVER_ENGINE_MEMORY_PLAN_H_
#define STRUCTATTN_SERVER_ENGINE_MEMORY_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/model/checkpoint.h"
#include "server/model/weight_estimate.h"

namespace structattn::engine {

struct MemoryPlan {
  WeightEstimate weights;
  int64_t kv_bytes = 0;
  int64_t kv_token_bytes = 0;   // Of one token.
  int64_t available_bytes = 0;  // When it was planned; it says nothing of a GPU's memory.
  bool kv_shrunk = false;       // Below the options' default.
};

// On CPU, KV memory of the default size shrinks to what is available beside the weights; a given
// one, or weights, that do not fit are FAILED_PRECONDITION.
absl::StatusOr<MemoryPlan> PlanMemory(const Checkpoint& checkpoint, const WeightForm& form,
                                      const EngineOptions& options, int64_t available_bytes);

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_MEMORY_PLAN_H_
