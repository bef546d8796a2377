// A digest of the weights themselves: it tells apart two models whose files differ in nothing but
// the numbers in their tensors. Follows no file layout, so that another sharding of the same
// tensors has the same digest. It reads every byte once more; it is no protection against two
// models that were made to have one digest, for which SHA-256 of the files is the tool.
#ifndef STRUCTATTN_SERVER_MODEL_WEIGHTS_DIGEST_H_
#define STRUCTATTN_SERVER_MODEL_WEIGHTS_DIGEST_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/thread_pool.h"
#include "server/model/sha256.h"

namespace structattn {

// SHA-256 of, for each tensor in the order of Add, the line "NAME BYTES\n" and the XXH3-128
// (canonical, big-endian) of each chunk of its bytes, the last one shorter.
class WeightsDigest {
 public:
  static constexpr int64_t kChunkBytes = int64_t{1} << 20;

  // The threads of `pool` share the chunks.
  explicit WeightsDigest(ThreadPool& pool) : pool_(pool) {}

  void Add(std::string_view name, std::string_view bytes);

  // Ends the digest: call it once, last. 64 lower-case digits.
  std::string Hex() { return hash_.Hex(); }

 private:
  ThreadPool& pool_;
  Sha256 hash_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_WEIGHTS_DIGEST_H_
