// The request ids that a stream has seen, 16 bytes each however long they are.
// It refuses duplicates, forgets nothing and takes no lock: the stream guards it.
#ifndef STRUCTATTN_SERVER_RPC_V1_SEEN_IDS_H_
#define STRUCTATTN_SERVER_RPC_V1_SEEN_IDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_set>

namespace structattn::rpc {

class SeenIds {
 public:
  // False when it was there.
  bool Insert(std::string_view id) { return digests_.insert(DigestOf(id)).second; }
  bool Contains(std::string_view id) const { return digests_.contains(DigestOf(id)); }
  size_t size() const { return digests_.size(); }

 private:
  using Digest = std::array<uint64_t, 2>;
  struct Hash {
    size_t operator()(const Digest& digest) const { return digest[0]; }
  };

  static Digest DigestOf(std::string_view id);

  std::unordered_set<Digest, Hash> digests_;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_SEEN_IDS_H_
