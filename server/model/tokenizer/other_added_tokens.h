// Added tokens that a folder names beside its tokenizer.json, as transformers' AutoTokenizer takes
// them: from added_tokens_decoder of tokenizer_config.json or, where that is not there, from
// added_tokens.json. Never changes a token of tokenizer.json.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_OTHER_ADDED_TOKENS_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_OTHER_ADDED_TOKENS_H_

#include "absl/status/status.h"
#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// Adds the tokens that `config` lacks. A token gets the id of the vocabulary, else its own where
// that continues the numbering, else the next free one, with a warning. Messages begin with the
// file's name.
absl::Status AddTokensOfOtherFiles(const TokenizerFiles& files, TokenizerConfig* config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_OTHER_ADDED_TOKENS_H_
