// The Unicode tables: a digest of all of them (their check against PyPI tokenizers is
// tests/tools/make_unicode_tables.py --check), and code points where Unicode versions differ.
#include "server/model/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "server/model/tokenizer/nfc.h"
#include "server/model/tokenizer/normalizer.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

std::string Utf8(char32_t c) {
  std::string text;
  AppendUtf8(c, &text);
  return text;
}

std::string Nfc(const std::string& text) {
  return Normalizer({{NormalizerStep::kNfc, "", ""}}).NormalizeString(text);
}

// FNV-1a.
void Mix(uint64_t value, uint64_t* digest) {
  for (int i = 0; i < 8; ++i, value >>= 8) *digest = (*digest ^ (value & 0xFF)) * 0x100000001B3u;
}

TEST(Unicode, TablesAreThoseTakenFromTheOracle) {
  const NormalizationData& data = NormalizationData::Get();
  uint64_t digest = 0xCBF29CE484222325u;
  for (char32_t c = 0; c < 0x110000; ++c) {
    const auto [first, second] = data.Decompose(c);
    Mix(CharClasses::Get()(c), &digest);
    Mix(data.CombiningClass(c), &digest);
    Mix(uint64_t{first} << 32 | second, &digest);
    Mix(second == 0 ? 0 : data.Compose(first, second), &digest);
  }
  EXPECT_EQ(digest, 0x751FCAE229382097u) << std::hex << digest;
}

TEST(Unicode, FollowsTheOracleWhereVersionsDiffer) {
  const CharClasses& classes = CharClasses::Get();
  EXPECT_EQ(classes(0x85) & kSpace, kSpace);
  EXPECT_EQ(classes(0x180E) & kSpace, 0);  // A space until Unicode 6.3.
  EXPECT_EQ(classes(0x200B) & kSpace, 0);
  EXPECT_EQ(classes(0x11DE0) & kNumeric, kNumeric);  // Unicode 17: known to Digits only.
  EXPECT_EQ(classes(0x11DE0) & kNumber, 0);
  EXPECT_EQ(classes(0x10D4A) & kLetter, kLetter);                 // Unicode 16.
  EXPECT_EQ(NormalizationData::Get().CombiningClass(0x1DFA), 0);  // Unicode 14: not to NFC.
}

TEST(Nfc, ComposesDecomposesAndReorders) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(Nfc("a\u0308\u0323"), "\u1ea1\u0308");  // Reordered, then composed.
  EXPECT_EQ(Nfc("\u212b"), "\u00c5");               // A singleton.
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093c");         // Excluded from composition.
  EXPECT_EQ(Nfc("\u1100\u1161\u11a8"), "\uac01");   // Hangul, algorithmic.
  EXPECT_EQ(Nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(Nfc("\uac01\u11a8"), "\uac01\u11a8");  // Has a tail already.
  EXPECT_EQ(Nfc("\u0301e"), "\u0301e");
  EXPECT_EQ(Nfc("\u09c7\u09be"), "\u09cb");  // Two starters.
  EXPECT_EQ(Nfc("q\u0307\u0323"), "q\u0323\u0307");
}

TEST(Nfc, IsIdempotentAndTheQuickCheckNeverLies) {
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string once = Nfc("x" + Utf8(c) + "\u0301\u0323y");
    ASSERT_EQ(Nfc(once), once) << std::hex << static_cast<uint32_t>(c);
    if (IsSurelyNfc(Utf8(c))) {
      OwnedText text;
      text.Append(Utf8(c), 0);
      ASSERT_EQ(ToNfc(text).text, Utf8(c));
    }
  }
}

TEST(Nfc, AComposedCharacterBelongsToTheEarlierSegment) {
  OwnedText text;
  text.Append("xe", 0);
  text.Append("\u0323\u0301y", 1);
  const OwnedText result = ToNfc(text);
  EXPECT_EQ(result.text, "x\u1eb9\u0301y");
  OwnerCursor cursor(result.runs);
  EXPECT_EQ(cursor.OwnerAt(1), 0);  // The composed letter.
  EXPECT_EQ(cursor.OwnerAt(4), 1);  // The acute accent that stayed apart.
  EXPECT_EQ(cursor.OwnerAt(6), 1);
}

}  // namespace
}  // namespace structattn
