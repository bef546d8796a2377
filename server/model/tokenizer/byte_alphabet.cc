// The byte alphabet: bytes that print as themselves keep their place in Latin-1, the others follow
// from U+0100 in order. Has no state but its constant tables.
#include "server/model/tokenizer/byte_alphabet.h"

#include <array>
#include <cstddef>

#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

constexpr bool PrintsAsItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int16_t, 0x100 + 68> bytes{};  // -1: not of the alphabet.

  constexpr Alphabet() {
    for (auto& byte : bytes) byte = -1;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t character = PrintsAsItself(byte) ? static_cast<char32_t>(byte) : next++;
      characters[static_cast<size_t>(byte)] = character;
      bytes[character] = static_cast<int16_t>(byte);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string ByteToAlphabet(uint8_t byte) {
  std::string result;
  AppendUtf8(kAlphabet.characters[byte], &result);
  return result;
}

std::optional<std::string> AlphabetToBytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size();) {
    const Utf8Char c = CharAt(token, i);
    if (c.code_point >= kAlphabet.bytes.size()) return std::nullopt;
    const int16_t byte = kAlphabet.bytes[c.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    i += c.size;
  }
  return bytes;
}

}  // namespace structattn
