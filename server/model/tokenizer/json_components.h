// The components of a tokenizer.json around its model. Every component or setting that the project
// does not implement is refused with its path and the allowed ones.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_COMPONENTS_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_COMPONENTS_H_

#include "absl/status/status.h"
#include "server/model/tokenizer/json_reader.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

absl::Status ReadNormalizer(const JsonNode& node, TokenizerConfig* config);
absl::Status ReadPreTokenizer(const JsonNode& node, TokenizerConfig* config);
absl::Status ReadPostProcessor(const JsonNode& node, TokenizerConfig* config);
absl::Status ReadDecoder(const JsonNode& node, TokenizerConfig* config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_JSON_COMPONENTS_H_
