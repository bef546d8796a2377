// A tokenizer.model of SentencePiece: the fields of its protocol buffer that decide how text
// becomes tokens. Trusts nothing in the bytes.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace structattn {

// Defaults are those of the format.
struct SentencePieceModel {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;  // PieceType.
  int32_t model_type = 1;      // 1 Unigram, 2 BPE.
  bool has_charsmap = false;   // Text is rewritten by rules before it is cut.
};

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_MODEL_H_
