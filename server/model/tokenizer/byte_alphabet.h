// GPT-2's alphabet: one printable character for each byte, in which byte-level vocabularies are
// written. Text on its way to tokens never is.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BYTE_ALPHABET_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace structattn {

// The character of a byte, as UTF-8.
std::string ByteToAlphabet(uint8_t byte);

// The bytes that `token` spells, or nothing if a character is not of the alphabet.
std::optional<std::string> AlphabetToBytes(std::string_view token);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BYTE_ALPHABET_H_
