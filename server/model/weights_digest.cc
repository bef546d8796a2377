// Implements weights_digest.h. The only file that sees xxHash, which is compiled into it.
#include "server/model/weights_digest.h"

#define XXH_INLINE_ALL  // NOLINT(readability-identifier-naming): xxHash names it.
#include <xxhash.h>

#include <vector>

#include "server/model/refusal.h"

namespace structattn {

void WeightsDigest::Add(std::string_view name, std::string_view bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  std::vector<XXH128_canonical_t> chunks(
      static_cast<size_t>((size + kChunkBytes - 1) / kChunkBytes));
  pool_.ParallelFor(static_cast<int64_t>(chunks.size()), [&](int64_t i) {
    const std::string_view chunk = bytes.substr(static_cast<size_t>(i * kChunkBytes), kChunkBytes);
    XXH128_canonicalFromHash(&chunks[static_cast<size_t>(i)],
                             XXH3_128bits(chunk.data(), chunk.size()));
  });
  hash_.Update(Concat(name, " ", bytes.size(), "\n"));
  hash_.Update(
      {reinterpret_cast<const char*>(chunks.data()), chunks.size() * sizeof(XXH128_canonical_t)});
}

}  // namespace structattn
