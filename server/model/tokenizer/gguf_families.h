// What a value of tokenizer.ggml.pre stands for: the tokenizer.json that the family publishes, as
// far as a GGUF file does not hold it. Never guesses: a name that is not in the table is refused.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_FAMILIES_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_FAMILIES_H_

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

struct GgufFamily {
  std::vector<SplitStep> splits;
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // Where the file does not say.
  // Tokens that GGUF files call control tokens and that the family's tokenizer.json does not call
  // special.
  std::span<const std::string_view> plain_tokens;
};

absl::StatusOr<GgufFamily> FindGgufFamily(std::string_view pre);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_FAMILIES_H_
