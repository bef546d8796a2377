// Implements kv_cache.h with tensors.
#include "server/model/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/model/device.h"

namespace structattn {
namespace {

// The product of positive factors; nothing when one is not positive or the product overflows.
std::optional<int64_t> CheckedProduct(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) {
    if (factor <= 0 || __builtin_mul_overflow(product, factor, &product)) return std::nullopt;
  }
  return product;
}

// Bytes of the keys of one block in one layer; as many again for its values.
std::optional<int64_t> BlockBytes(const KvCacheParams& params) {
  return CheckedProduct({params.kv_heads, params.head_dim, params.block_size,
                         static_cast<int64_t>(ByteSize(params.dtype))});
}

}  // namespace

absl::StatusOr<int32_t> CountKvBlocks(const KvCacheParams& params) {
  const std::optional<int64_t> one = BlockBytes(params);
  const std::optional<int64_t> all = CheckedProduct({one.value_or(0), 2, params.layers});
  if (!all.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("KV block of ", params.layers, " layers, ", params.kv_heads, " KV heads, ",
                     params.head_dim, " head_dim, ", params.block_size,
                     " tokens: every number must be positive and their product below 2^63"));
  }
  const int64_t blocks = params.memory_bytes / *all;
  if (blocks <= 0) {
    return absl::FailedPreconditionError(absl::StrCat("KV memory of ", params.memory_bytes,
                                                      " bytes: one block of ", params.block_size,
                                                      " tokens takes ", *all, " bytes"));
  }
  return static_cast<int32_t>(
      std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max() / params.block_size));
}

absl::StatusOr<KvCache> AllocateKvCache(const KvCacheParams& params) {
  const absl::StatusOr<int32_t> blocks = CountKvBlocks(params);
  if (!blocks.ok()) return blocks.status();
  const int64_t bytes = *BlockBytes(params) * *blocks;
  const c10::Device device = ToTorchDevice(params.device);
  auto tensors = std::make_shared<std::vector<at::Tensor>>();
  KvCache cache{
      .layers = {}, .shape = {.blocks = *blocks, .block_size = params.block_size}, .memory = {}};
  try {
    for (int64_t layer = 0; layer < params.layers; ++layer) {
      const at::Tensor key = at::empty({bytes}, at::dtype(at::kByte).device(device));
      const at::Tensor value = at::empty({bytes}, at::dtype(at::kByte).device(device));
      cache.layers.push_back({.key = key.data_ptr(),
                              .value = value.data_ptr(),
                              .dtype = params.dtype,
                              .block_size = params.block_size,
                              .kv_heads = static_cast<int32_t>(params.kv_heads),
                              .head_dim = static_cast<int32_t>(params.head_dim)});
      tensors->insert(tensors->end(), {key, value});
    }
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("KV memory of ", params.memory_bytes, " bytes cannot be allocated"));
  }
  cache.memory = std::move(tensors);
  return cache;
}

}  // namespace structattn
