// SentencePiece's pieces into the TokenizerConfig of the tokenizer.json that transformers makes of
// them. Pieces come from a tokenizer.model or from a GGUF file; both number their types alike.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_CONFIG_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_CONFIG_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

enum PieceType : int32_t {
  kNormalPiece = 1,
  kUnknownPiece = 2,
  kControlPiece = 3,
  kUserDefinedPiece = 4,
  kUnusedPiece = 5,
  kBytePiece = 6,
};

// By id. Without types all are normal.
struct Pieces {
  std::span<const std::string> texts;
  std::span<const float> scores;
  std::span<const int32_t> types;

  PieceType TypeOf(size_t id) const {
    return types.empty() ? kNormalPiece : static_cast<PieceType>(types[id]);
  }
};

struct SentencePieceSettings {
  bool unigram = false;  // Else BPE.
  bool prefix = true;    // A text gets a space in front.
  // Each piece of text between added tokens gets it; else the text alone, unless it begins with a
  // space.
  bool legacy = true;
};

// The vocabulary without unused pieces, and the added tokens: control pieces and the unknown one,
// which are special, and user-defined ones.
void AddPieces(const Pieces& pieces, TokenizerConfig* config);

// Without special prefix and suffix. Scores are numbers, one a piece.
absl::StatusOr<TokenizerConfig> SentencePieceConfig(const Pieces& pieces,
                                                    const SentencePieceSettings& settings);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_SENTENCEPIECE_CONFIG_H_
