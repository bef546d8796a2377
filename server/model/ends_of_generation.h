// The ids at which generation ends, gathered from a checkpoint's files: which keys and names count.
// An id that the model cannot emit is ignored with a warning. Reads no file.
#ifndef STRUCTATTN_SERVER_MODEL_ENDS_OF_GENERATION_H_
#define STRUCTATTN_SERVER_MODEL_ENDS_OF_GENERATION_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "absl/status/status.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer/gguf_vocabulary.h"

namespace structattn {

// A folder: `eos_token_id` of config.json and of generation_config.json, an id or a list of them.
// `file` is one of the two names, with which messages begin. An error where it is neither an id nor
// a list.
absl::Status AddEnds(std::string_view file, const nlohmann::json& eos_token_id,
                     ModelConfig& config);

// A GGUF file: the ids that its metadata name, and the control tokens of certain names.
absl::Status AddEnds(const Gguf& gguf, const GgufVocabulary& vocabulary, ModelConfig& config);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_ENDS_OF_GENERATION_H_
