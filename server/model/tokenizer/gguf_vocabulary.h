// The vocabulary part of a GGUF file's metadata, as plain data. Checks nothing.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_VOCABULARY_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace structattn {

// Names follow the keys tokenizer.ggml.* of the GGUF specification.
struct GgufVocabulary {
  std::string model;  // "gpt2" (byte-level BPE) or "llama" (SentencePiece-style BPE).
  std::string pre;    // Pre-tokeniser: "smollm", "qwen2", "llama-bpe", "gpt-2", ...
  std::vector<std::string> tokens;
  std::vector<float> scores;         // Empty, or one per token.
  std::vector<int32_t> token_types;  // Empty, or one per token: 1 normal, 2 unknown, 3 control,
                                     // 4 user-defined, 5 unused, 6 byte.
  std::vector<std::string> merges;   // "left right".
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> eos_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_space_prefix;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_GGUF_VOCABULARY_H_
