// The KV memory of one model: keys and values of every layer, cut into blocks. Knows nothing of
// which sequence uses which block.
#ifndef STRUCTATTN_SERVER_MODEL_KV_CACHE_H_
#define STRUCTATTN_SERVER_MODEL_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention/attention.h"
#include "kernels/context.h"
#include "kernels/dtype.h"
#include "server/model/decoder.h"

namespace structattn {

struct KvCache {
  std::vector<KvLayerView> layers;
  KvShape shape;
  std::shared_ptr<void> memory;  // Keeps what the views point at alive.
};

struct KvCacheParams {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int32_t block_size = 0;
  DType dtype = DType::kFloat32;
  Device device = {};
  int64_t memory_bytes = 0;  // Upper bound; as many whole blocks as fit are made.
};

// Blocks that fit into params.memory_bytes. FAILED_PRECONDITION when there is not even one, or when
// a size is not positive or overflows.
absl::StatusOr<int32_t> CountKvBlocks(const KvCacheParams& params);

// Allocates without touching: on CPU a page costs resident memory only once a token is written to
// it. RESOURCE_EXHAUSTED when the memory cannot be had.
absl::StatusOr<KvCache> AllocateKvCache(const KvCacheParams& params);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_KV_CACHE_H_
