// Implements seen_ids.h.
#include "server/rpc/v1/seen_ids.h"

#include <cstring>

#include "server/model/sha256.h"

namespace structattn::rpc {

SeenIds::Digest SeenIds::DigestOf(std::string_view id) {
  Sha256 hash;
  hash.Update(id);
  const std::array<uint8_t, 32> bytes = hash.Bytes();
  Digest digest;
  std::memcpy(digest.data(), bytes.data(), sizeof(digest));
  return digest;
}

}  // namespace structattn::rpc
