// A tokenizer.json as PyPI `tokenizers` writes it, into a TokenizerConfig. Reads no file; trusts
// nothing in the text.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_LOADER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_LOADER_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/json_reader.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

// Messages name the JSON path.
absl::StatusOr<TokenizerConfig> ReadTokenizerJson(std::string_view json);

// The flags and the content of an added token, without its id. An absent flag is false, but
// `normalized` is by default what `special` is not.
absl::StatusOr<AddedToken> ReadAddedToken(const JsonNode& node);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_LOADER_H_
