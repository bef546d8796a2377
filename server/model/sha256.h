// SHA-256 of a stream of bytes, as hexadecimal text.
// Used for the digests that replies name (checkpoint, structure); not for secrets or passwords.
#ifndef STRUCTATTN_SERVER_MODEL_SHA256_H_
#define STRUCTATTN_SERVER_MODEL_SHA256_H_

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace structattn {

class Sha256 {
 public:
  Sha256();

  void Update(std::string_view bytes);

  // 64 lower-case digits. Ends the stream: call once, last.
  std::string Hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_SHA256_H_
