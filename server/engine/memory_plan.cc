// Implements memory_plan.h.
#include "server/engine/memory_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace structattn::engine {
namespace {

constexpr int64_t kMib = int64_t{1} << 20;
// Left for activations and requests when the size of KV memory is ours to choose, and the least KV
// memory that is worth serving with.
constexpr int64_t kReserveBytes = 256 * kMib;
constexpr int64_t kLeastKvBytes = 16 * kMib;

// The decoder keeps heads whose size is no multiple of 16 with zeros behind.
int64_t TokenBytes(const ModelConfig& config, DType dtype) {
  const int64_t head_dim = (config.head_dim + 15) / 16 * 16;
  return 2 * config.layers * config.kv_heads * head_dim * static_cast<int64_t>(ByteSize(dtype));
}

absl::Status DoesNotFit(const MemoryPlan& plan, int64_t kv_bytes) {
  return absl::FailedPreconditionError(
      absl::StrCat("weights of ", plan.weights.bytes / kMib, " MiB and KV memory of ",
                   kv_bytes / kMib, " MiB do not fit into the ", plan.available_bytes / kMib,
                   " MiB that this machine or its cgroup has available (--kv-memory-mb)"));
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const Checkpoint& checkpoint, const WeightForm& form,
                                      const EngineOptions& options, int64_t available_bytes) {
  MemoryPlan plan{.weights = EstimateWeights(checkpoint, form),
                  .kv_bytes = options.kv_memory_bytes,
                  .kv_token_bytes = TokenBytes(checkpoint.config(), form.dtype),
                  .available_bytes = available_bytes};
  if (form.device != DeviceKind::kCpu) return plan;
  const int64_t left = available_bytes - plan.weights.bytes;
  if (options.kv_memory_given) {
    if (plan.kv_bytes > left) return DoesNotFit(plan, plan.kv_bytes);
    return plan;
  }
  const int64_t fits = left - kReserveBytes;
  if (fits < std::min(plan.kv_bytes, kLeastKvBytes)) return DoesNotFit(plan, kLeastKvBytes);
  plan.kv_shrunk = fits < plan.kv_bytes;
  plan.kv_bytes = std::min(plan.kv_bytes, fits);
  return plan;
}

}  // namespace structattn::engine
