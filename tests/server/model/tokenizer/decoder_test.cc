// Streams: whole characters only, and the oracle's rules for broken ones.
#include "server/model/tokenizer/decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "server/model/tokenizer/utf8.h"
#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

int32_t ByteToken(const Tokenizer& llama2, int byte) {
  char name[8];
  std::snprintf(name, sizeof(name), "<0x%02X>", byte);
  return llama2.FindToken(name);
}

TEST(StreamDecoder, RoundTripsText) {
  const std::string text = "Hi, e\u0301t\u00e9 \u6771\u4eac \U0001F600!  \n\tx";
  for (const char* family : {"gpt2", "smollm2", "llama3", "llama2"}) {
    const auto tokenizer = LoadTokenizer(FixtureJson(family));
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text)), text) << family;
  }
}

TEST(StreamDecoder, HoldsBackHalfACharacter) {
  const auto tokenizer = LoadTokenizer(FixtureJson("qwen2"));
  const std::vector<int32_t> ids = Ids(*tokenizer, "\U0002FFFF!");  // One byte a token, then "!".
  ASSERT_EQ(ids.size(), 5u);
  const auto decoder = tokenizer->NewStreamDecoder();
  EXPECT_EQ(decoder->Push(ids[0]), "");
  EXPECT_EQ(decoder->Push(ids[1]), "");
  EXPECT_EQ(decoder->Push(ids[2]), "");
  EXPECT_EQ(decoder->Push(ids[3]), "\U0002FFFF");
  EXPECT_EQ(decoder->Push(ids[4]), "!");
  EXPECT_EQ(decoder->Finish(), "");
}

TEST(StreamDecoder, UnfinishedCharacterBecomesOneReplacement) {
  const auto tokenizer = LoadTokenizer(FixtureJson("qwen2"));
  const std::vector<int32_t> ids = Ids(*tokenizer, "\U0002FFFF");
  EXPECT_EQ(tokenizer->Decode(std::span(ids).first(3)), "\uFFFD");
  // Broken off by another character: the longest part is one replacement.
  std::vector<int32_t> broken(ids.begin(), ids.begin() + 2);
  broken.push_back(Ids(*tokenizer, "!")[0]);
  EXPECT_EQ(tokenizer->Decode(broken), "\uFFFD!");
  // Bytes that can begin nothing are one replacement each.
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{ids[1], ids[1]}), "\uFFFD\uFFFD");
}

TEST(StreamDecoder, ByteTokensAreOneTextOrOneReplacementEach) {
  const auto tokenizer = LoadTokenizer(FixtureJson("llama2"));
  const int32_t a = tokenizer->FindToken("a");
  const auto byte = [&](int value) { return ByteToken(*tokenizer, value); };
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{a, byte(0xC3), byte(0xA9), a}), "a\u00e9a");
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{a, byte(0xC3), byte(0xA9), byte(0xC3), a}),
            "a\uFFFD\uFFFD\uFFFDa");
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{a, byte(0xC3)}), "a\uFFFD");
}

TEST(StreamDecoder, OnlyTheFirstSpaceOfTheTextIsStripped) {
  const auto tokenizer = LoadTokenizer(FixtureJson("llama2"));
  const int32_t the = Ids(*tokenizer, "the")[0];
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{the, the}), "the the");
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{1, the}), "the");  // <s> is skipped.
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, " the")), " the");
}

TEST(StreamDecoder, SpecialAndUnknownIdsAreEmpty) {
  for (const char* family : kFamilies) {
    const auto tokenizer = LoadTokenizer(FixtureJson(family));
    std::vector<int32_t> ids = {-5, 1 << 30, tokenizer->vocabulary_size()};
    for (int32_t id = 0; id < tokenizer->vocabulary_size(); ++id) {
      if (tokenizer->IsSpecial(id)) ids.push_back(id);
    }
    EXPECT_EQ(tokenizer->Decode(ids), "") << family;
  }
}

TEST(StreamDecoder, PiecesAreWholeCharactersForAnyIds) {
  std::mt19937 random(11);
  for (const char* family : kFamilies) {
    const auto tokenizer = LoadTokenizer(FixtureJson(family));
    const auto size = static_cast<uint32_t>(tokenizer->vocabulary_size());
    for (int round = 0; round < 500; ++round) {
      const auto decoder = tokenizer->NewStreamDecoder();
      std::string text;
      for (int i = 0; i < 30; ++i) {
        const uint32_t limit = random() % 2 == 0 ? 300 : size + 10;
        const std::string piece = decoder->Push(static_cast<int32_t>(random() % limit));
        ASSERT_TRUE(IsValidUtf8(piece)) << family;
        text += piece;
      }
      ASSERT_TRUE(IsValidUtf8(text + decoder->Finish()));
    }
  }
}

}  // namespace
}  // namespace structattn
