// What a GGUF file's metadata say about model and vocabulary, in our own terms. Reads metadata and
// the tensors' shapes, never their data.
#ifndef STRUCTATTN_SERVER_MODEL_GGUF_CONFIG_H_
#define STRUCTATTN_SERVER_MODEL_GGUF_CONFIG_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer/gguf_vocabulary.h"

namespace structattn {

// Without rope.frequency_divisors, which are tensor data, and eos_token_ids, which need the
// vocabulary (AddEnds). Validated.
absl::StatusOr<ModelConfig> ReadGgufConfig(const Gguf& gguf);

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const Gguf& gguf);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_GGUF_CONFIG_H_
