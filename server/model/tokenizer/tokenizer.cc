// What every Tokenizer shares: decoding a whole list. The implementation is bpe_tokenizer.cc, the
// makers are json_loader.cc and gguf_loader.cc.
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  const std::unique_ptr<StreamDecoder> decoder = NewStreamDecoder();
  std::string text;
  for (const int32_t id : ids) text += decoder->Push(id);
  return text + decoder->Finish();
}

}  // namespace structattn
