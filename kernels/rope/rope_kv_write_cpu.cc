// RopeKvWrite on the CPU, token by token: q goes into the query tensor, k (transposed in its block)
// and v into the paged cache. Norm, rotation and conversion stand on Highway. The transposing write
// of k is scalar, with one store per element, which is less than a hundredth of the projection that
// made it.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope/rope_kv_write_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include <cstring>

#include "hwy/highway.h"
#include "kernels/convert-inl.h"
#include "kernels/norm/sum_of_squares-inl.h"
#include "kernels/parallel_rows.h"
#include "kernels/rope/rope_kv_write.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxHeadDim = 256;

// The angles of one token, and how its q or k heads are normalised.
struct Rotation {
  const float* cosine;  // [head_dim / 2]
  const float* sine;
  const float* norm;  // [head_dim], or null for none.
  float epsilon;
  int32_t head_dim;
};

// Normalises (if there is a norm) and rotates one head. Element i pairs with i + head_dim / 2.
// Products and sums are rounded separately, as Hugging Face's formula does.
HWY_INLINE void RotateHead(const float* head, const Rotation& rotation, float* rotated) {
  const hn::CappedTag<float, 8> d;  // head_dim / 2 is a multiple of 8.
  const int32_t half = rotation.head_dim / 2;
  const float* from = head;
  HWY_ALIGN float normalised[kMaxHeadDim];
  if (rotation.norm != nullptr) {
    const float scale = InverseRms(head, rotation.head_dim, rotation.epsilon);
    for (int32_t i = 0; i < rotation.head_dim; ++i) {
      normalised[i] = head[i] * scale * rotation.norm[i];
    }
    from = normalised;
  }
  for (int32_t i = 0; i < half; i += static_cast<int32_t>(hn::Lanes(d))) {
    const auto low = hn::LoadU(d, from + i);
    const auto high = hn::LoadU(d, from + half + i);
    const auto cosine = hn::LoadU(d, rotation.cosine + i);
    const auto sine = hn::LoadU(d, rotation.sine + i);
    hn::StoreU(hn::Sub(hn::Mul(low, cosine), hn::Mul(high, sine)), d, rotated + i);
    hn::StoreU(hn::Add(hn::Mul(high, cosine), hn::Mul(low, sine)), d, rotated + half + i);
  }
}

template <typename T>
HWY_INLINE void ConvertHead(const float* from, int32_t head_dim, T* to) {
  const hn::CappedTag<float, 16> d;
  for (int32_t i = 0; i < head_dim; i += static_cast<int32_t>(hn::Lanes(d))) {
    StoreAs(hn::LoadU(d, from + i), d, to + i);
  }
}

// Writes one key into slot `offset` of its head's share of a block, transposed as KvLayerView
// shows.
template <typename T>
HWY_INLINE void WriteKey(const T* key, const KvLayerView& kv, T* head, int64_t offset) {
  for (int32_t i = 0; i < kv.head_dim; ++i) head[i * kv.block_size + offset] = key[i];
}

HWY_INLINE void WriteKey(const Bfloat16* key, const KvLayerView& kv, Bfloat16* head,
                         int64_t offset) {
  for (int32_t i = 0; i < kv.head_dim; i += 2) {
    std::memcpy(head + (i / 2 * kv.block_size + offset) * 2, key + i, 2 * sizeof(Bfloat16));
  }
}

// Writes one token's KV heads, `key` and `value`, into its slot of the cache.
template <typename T>
void WriteKeyValue(const float* key, const float* value, int64_t slot, const Rotation& rotation,
                   const KvLayerView& kv) {
  const int32_t head_dim = kv.head_dim;
  const int64_t block = slot / kv.block_size;
  const int64_t offset = slot % kv.block_size;
  HWY_ALIGN float rotated[kMaxHeadDim];
  HWY_ALIGN T converted[kMaxHeadDim];
  for (int32_t h = 0; h < kv.kv_heads; ++h) {
    const int64_t head = (block * kv.kv_heads + h) * head_dim * kv.block_size;
    RotateHead(key + h * head_dim, rotation, rotated);
    ConvertHead(rotated, head_dim, converted);
    WriteKey(converted, kv, static_cast<T*>(kv.key) + head, offset);
    ConvertHead(value + h * head_dim, head_dim,
                static_cast<T*>(kv.value) + head + offset * head_dim);
  }
}

void WriteKeyValueAs(DType dtype, const float* key, int64_t slot, const Rotation& rotation,
                     const KvLayerView& kv) {
  const float* value = key + kv.kv_heads * kv.head_dim;
  switch (dtype) {
    case DType::kFloat32:
      return WriteKeyValue<float>(key, value, slot, rotation, kv);
    case DType::kBfloat16:
      return WriteKeyValue<Bfloat16>(key, value, slot, rotation, kv);
    case DType::kFloat16:
      return WriteKeyValue<Float16>(key, value, slot, rotation, kv);
  }
}

void RopeKvWriteTokens(const RopeKvWriteParams& params, int64_t begin, int64_t end) {
  const int32_t head_dim = params.kv.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t query_size = static_cast<int64_t>(params.heads) * head_dim;
  const int64_t token_size = query_size + 2 * static_cast<int64_t>(params.kv.kv_heads) * head_dim;
  for (int64_t token = begin; token < end; ++token) {
    const float* query = params.qkv + token * token_size;
    float* rotated = params.query + token * query_size;
    Rotation rotation = {.cosine = params.cosine + token * half,
                         .sine = params.sine + token * half,
                         .norm = params.query_norm,
                         .epsilon = params.epsilon,
                         .head_dim = head_dim};
    for (int64_t i = 0; i < query_size; i += head_dim) {
      RotateHead(query + i, rotation, rotated + i);
    }
    rotation.norm = params.key_norm;
    WriteKeyValueAs(params.kv.dtype, query + query_size, params.slots[token], rotation, params.kv);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(RopeKvWriteTokens);

void RopeKvWriteCpu(ThreadPool& pool, const RopeKvWriteParams& params) {
  const auto tokens_item = HWY_DYNAMIC_DISPATCH(RopeKvWriteTokens);
  const int64_t elements =
      static_cast<int64_t>(params.heads + 2 * params.kv.kv_heads) * params.kv.head_dim;
  ParallelForRows(pool, params.tokens, elements,
                  [&](int64_t begin, int64_t end) { tokens_item(params, begin, end); });
}

}  // namespace structattn
#endif  // HWY_ONCE
