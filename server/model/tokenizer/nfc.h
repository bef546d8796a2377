// Unicode's Normalization Form C with owners, as the oracle's NFC computes it. Never touches text
// that is in the form already.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_NFC_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_NFC_H_

#include <string_view>

#include "server/model/tokenizer/owned_text.h"

namespace structattn {

// True only if NFC leaves the text as it is. May be false for such a text, too.
bool IsSurelyNfc(std::string_view text);

// A character composed of several belongs to the earliest segment of theirs.
OwnedText ToNfc(const OwnedText& in);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_NFC_H_
