// SHA-256 over OpenSSL's EVP interface: see sha256.h. The only file that sees OpenSSL's digests.
#include "server/model/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "kernels/check.h"

namespace structattn {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  STRUCTATTN_CHECK(context_ != nullptr);
  STRUCTATTN_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Update(std::string_view bytes) {
  STRUCTATTN_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::array<uint8_t, 32> Sha256::Bytes() {
  std::array<uint8_t, 32> digest;
  STRUCTATTN_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1);
  return digest;
}

std::string Sha256::Hex() {
  const std::array<uint8_t, 32> digest = Bytes();
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

}  // namespace structattn
