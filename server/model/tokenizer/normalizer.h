// The normalizer of tokenizer.json: a list of steps over a piece of text between added tokens.
// Knows nothing of words and tokens.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_NORMALIZER_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_NORMALIZER_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/model/tokenizer/owned_text.h"
#include "server/model/tokenizer/tokenizer_config.h"

namespace structattn {

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // True only if Normalize would return the text as it is; cheap.
  bool LeavesUnchanged(std::string_view text) const;
  OwnedText Normalize(OwnedText text) const;
  std::string NormalizeString(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

// Replacing a non-empty pattern; a replacement belongs to the earliest owner of what it replaces.
OwnedText ReplaceAll(const OwnedText& in, std::string_view pattern, std::string_view content);
OwnedText PrependText(const OwnedText& in, std::string_view content);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_NORMALIZER_H_
