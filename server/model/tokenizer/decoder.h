// Ids back to text, token by token, exactly as the oracle decodes the whole list. Never emits part
// of a character.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_DECODER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_DECODER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// What each id stands for, worked out once at load.
class TokenDecoder {
 public:
  explicit TokenDecoder(DecoderConfig config) : config_(std::move(config)) {}

  // `text` is the token as the oracle hands it to its decoder. Ids need not come in order.
  void AddToken(int32_t id, std::string_view text, bool special);

  // Empty for ids without a token.
  std::string Bytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  std::unique_ptr<Tokenizer::StreamDecoder> NewStream() const;

 private:
  friend class ByteLevelStream;
  friend class SentencePieceStream;

  struct Entry {
    std::string bytes;
    bool known = false;
    bool special = false;
    bool is_byte = false;  // A byte token <0xNN>: `bytes` is that byte.
  };

  const Entry* Find(int32_t id) const;
  std::string Render(const Entry& entry, bool first) const;

  DecoderConfig config_;
  std::vector<Entry> entries_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_DECODER_H_
