// SHA-256 of a stream of bytes.
// Used for the digests that replies name (checkpoint, structure) and for the keys of KV blocks
// (server/engine/cache/block_keys); not for secrets or passwords.
#ifndef STRUCTATTN_SERVER_MODEL_SHA256_H_
#define STRUCTATTN_SERVER_MODEL_SHA256_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace structattn {

class Sha256 {
 public:
  Sha256();

  void Update(std::string_view bytes);

  // Either ends the stream: call one of them once, last.
  std::array<uint8_t, 32> Bytes();
  std::string Hex();  // 64 lower-case digits.

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_SHA256_H_
