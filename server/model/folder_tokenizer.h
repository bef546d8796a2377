// The tokenizer's files of a Hugging Face folder, read; and what a tokenizer and the embedding of
// its model demand of each other.
#ifndef STRUCTATTN_SERVER_MODEL_FOLDER_TOKENIZER_H_
#define STRUCTATTN_SERVER_MODEL_FOLDER_TOKENIZER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/sha256.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn {

absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::string& directory);

// Adds every file that there is to a model's digest.
void HashTokenizerFiles(const TokenizerFiles& files, Sha256* hash);

// Text without added tokens must not need an embedding that the model lacks, nor the special prefix
// of a prompt. An added token may: a prompt that holds it is refused.
absl::Status CheckEmbedded(const Tokenizer& tokenizer, int64_t vocab_size);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_FOLDER_TOKENIZER_H_
