// UTF-8 reading: every code point, and the ways in which bytes can be broken.
#include "server/model/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace structattn {
namespace {

TEST(Utf8, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_TRUE(IsValidUtf8(text));
    ASSERT_EQ(CharAt(text, 0).code_point, c);
    ASSERT_EQ(CharAt(text, 0).size, text.size());
    ASSERT_EQ(CharBefore("ab" + text, 2 + text.size()).code_point, c);
  }
}

TEST(Utf8, FindsTheLongestPartOfABrokenCharacter) {
  struct Case {
    std::string bytes;
    Utf8Prefix::Kind kind;
    size_t size;
  };
  for (const Case& c : {Case{"\x80", Utf8Prefix::kInvalid, 1},
                        {"\xC0\xAF", Utf8Prefix::kInvalid, 1},
                        {"\xE0\x80\x80", Utf8Prefix::kInvalid, 1},      // Overlong.
                        {"\xED\xA0\x80", Utf8Prefix::kInvalid, 1},      // A surrogate.
                        {"\xF4\x90\x80\x80", Utf8Prefix::kInvalid, 1},  // Past U+10FFFF.
                        {"\xF5", Utf8Prefix::kInvalid, 1},
                        {"\xE4\xB8z", Utf8Prefix::kInvalid, 2},
                        {"\xF0\x9F\x98z", Utf8Prefix::kInvalid, 3},
                        {"\xE4\xB8", Utf8Prefix::kUnfinished, 2},
                        {"\xF0\x9F\x98", Utf8Prefix::kUnfinished, 3},
                        {"\xF0\x9F\x98\x80z", Utf8Prefix::kCharacter, 4}}) {
    const Utf8Prefix prefix = ReadUtf8Prefix(c.bytes);
    EXPECT_EQ(prefix.kind, c.kind) << testing::PrintToString(c.bytes);
    EXPECT_EQ(prefix.size, c.size) << testing::PrintToString(c.bytes);
  }
}

TEST(Utf8, NeverReadsPastTheEnd) {
  const std::string text = "a\xF0";
  EXPECT_EQ(CharAt(text, 1).size, 1u);
  EXPECT_EQ(CharAt(text, 1).code_point, kReplacementCharacter);
}

}  // namespace
}  // namespace structattn
