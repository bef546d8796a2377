// Which segment a token belongs to, and where special tokens match: spec section 2 on the fixtures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <string>
#include <vector>

#include "tests/server/model/tokenizer/test_tokenizers.h"

namespace structattn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::unique_ptr<Tokenizer> Load(const std::string& family) {
  return LoadTokenizer(FixtureJson(family));
}

TEST(Encode, NothingGivesNothing) {
  for (const char* family : kFamilies) {
    const auto tokenizer = Load(family);
    EXPECT_THAT(tokenizer->Encode({}), IsEmpty());
    EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
    EXPECT_THAT(Segments(*tokenizer, {"", ""}), IsEmpty());
  }
}

TEST(Encode, IdsDoNotDependOnTheBorders) {
  const std::string text = "What is the capital of France? e\u0301 \U0001F600 12345 it's  \n";
  for (const char* family : kFamilies) {
    const auto tokenizer = Load(family);
    const std::vector<int32_t> expected = Ids(*tokenizer, text);
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      if (cut < text.size() && (static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) continue;
      const TextSegment segments[] = {{.text = std::string_view(text).substr(0, cut)},
                                      {.text = std::string_view(text).substr(cut)}};
      std::vector<int32_t> ids;
      int32_t last = 0;
      for (const Token& token : tokenizer->Encode(segments)) {
        ids.push_back(token.id);
        EXPECT_GE(token.segment, last);
        last = token.segment;
      }
      EXPECT_EQ(ids, expected) << family << ", cut at " << cut;
    }
  }
}

TEST(Encode, ATokenBelongsToTheSegmentOfMostOfItsBytes) {
  const auto tokenizer = Load("gpt2");
  ASSERT_THAT(Pieces(*tokenizer, " the"), ElementsAre(" the"));
  EXPECT_THAT(Segments(*tokenizer, {" t", "he"}), ElementsAre(0));  // A tie.
  EXPECT_THAT(Segments(*tokenizer, {" ", "the"}), ElementsAre(1));  // The space counts.
  EXPECT_THAT(Segments(*tokenizer, {" th", "e"}), ElementsAre(0));
  EXPECT_THAT(Segments(*tokenizer, {"", " ", "", "the", ""}), ElementsAre(3));
  EXPECT_THAT(Segments(*tokenizer, {" ", "t", "h", "e"}), ElementsAre(0));
}

TEST(Encode, PartsOfACharacterCountByBytes) {
  const auto tokenizer = Load("llama2");
  ASSERT_EQ(Ids(*tokenizer, "\U0002FFFF").size(), 5u);  // Dummy prefix and four byte tokens.
  EXPECT_THAT(Segments(*tokenizer, {"", "\U0002FFFF", "x"}), ElementsAre(1, 1, 1, 1, 1, 2));
}

TEST(Encode, TheDummyPrefixCountsForNoSegment) {
  const auto tokenizer = Load("llama2");
  ASSERT_THAT(Pieces(*tokenizer, "the"), ElementsAre(" the"));
  EXPECT_THAT(Segments(*tokenizer, {"t", "he"}), ElementsAre(1));
  // Alone it goes to the first segment that is not empty.
  EXPECT_THAT(Segments(*tokenizer, {"", "\U0002FFFF"}), Each(1));
}

TEST(Encode, ACharacterComposedAcrossABorderBelongsToTheEarlierSegment) {
  const auto tokenizer = Load("qwen2");
  const std::vector<int32_t> composed = Ids(*tokenizer, "\u00e9");
  EXPECT_EQ(Ids(*tokenizer, "e\u0301"), composed);
  EXPECT_THAT(Segments(*tokenizer, {"e", "\u0301"}), Each(0));
  EXPECT_THAT(Segments(*tokenizer, {"", "e", "\u0301"}), Each(1));
}

TEST(Encode, SpecialTokensMatchOnlyInsideTextThatAsksForIt) {
  const auto tokenizer = Load("qwen2");
  const int32_t end = tokenizer->FindToken("<|im_end|>");
  const auto encode = [&](std::vector<TextSegment> segments) {
    std::vector<int32_t> ids;
    for (const Token& token : tokenizer->Encode(segments)) ids.push_back(token.id);
    return ids;
  };
  EXPECT_THAT(encode({{"<|im_end|>", true}}), ElementsAre(end));
  EXPECT_THAT(encode({{"<|im_", true}, {"end|>", true}}), ElementsAre(end));
  const std::vector<int32_t> plain = encode({{"<|im_end|>", false}});
  EXPECT_THAT(plain, ::testing::Not(::testing::Contains(end)));
  EXPECT_EQ(encode({{"<|im_", true}, {"end|>", false}}), plain);
  EXPECT_EQ(encode({{"<|im_", false}, {"end|>", true}}), plain);
  EXPECT_THAT(encode({{"<|im_end|>", false}, {"<|im_end|>", true}}), ::testing::Contains(end));
}

TEST(Encode, AddedTokensThatAreNotSpecialMatchAlways) {
  const auto tokenizer = Load("qwen2");
  const int32_t call = tokenizer->FindToken("<tool_call>");
  EXPECT_FALSE(tokenizer->IsSpecial(call));
  EXPECT_THAT(Ids(*tokenizer, "<tool_call>"), ElementsAre(call));
  EXPECT_THAT(Segments(*tokenizer, {"<tool", "_call>"}), ElementsAre(1));
  // Normalisation does not reach over an added token.
  EXPECT_THAT(Pieces(*tokenizer, "e<tool_call>\u0301"),
              ElementsAre("e", "<tool_call>", "\xCC", "\x81"));
}

TEST(Encode, StopsWhenAsked) {
  const auto tokenizer = Load("llama2");
  const TextSegment segment{.text = "the capital"};
  std::stop_source source;
  const absl::StatusOr<std::vector<Token>> tokens =
      tokenizer->Encode({&segment, 1}, source.get_token());
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(tokens->size(), tokenizer->Encode({&segment, 1}).size());
  source.request_stop();
  EXPECT_EQ(tokenizer->Encode({&segment, 1}, source.get_token()).status().code(),
            absl::StatusCode::kCancelled);
}

TEST(Tokenizer, SpecialPrefixIsWhatTheTemplateAdds) {
  EXPECT_THAT(Load("gpt2")->special_prefix(), IsEmpty());
  EXPECT_THAT(Load("qwen3")->special_prefix(), IsEmpty());
  const auto llama3 = Load("llama3");
  EXPECT_THAT(llama3->special_prefix(), ElementsAre(llama3->FindToken("<|begin_of_text|>")));
  EXPECT_THAT(Load("llama2")->special_prefix(), ElementsAre(1));
  EXPECT_THAT(Load("llama2")->special_suffix(), IsEmpty());
}

TEST(Tokenizer, AnswersAboutItsTokens) {
  const auto tokenizer = Load("llama3");
  const int32_t end = tokenizer->FindToken("<|eot_id|>");
  EXPECT_TRUE(tokenizer->IsSpecial(end));
  EXPECT_EQ(tokenizer->TokenBytes(end), "<|eot_id|>");
  EXPECT_EQ(tokenizer->vocabulary_size(), tokenizer->FindToken("<|python_tag|>") + 1);
  EXPECT_EQ(tokenizer->FindToken("no such token"), -1);
  for (const int32_t id : {-1, tokenizer->vocabulary_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  // A word that is a token needs no merges with ignore_merges.
  EXPECT_EQ(Ids(*tokenizer, " university").size(), 1u);
}

}  // namespace
}  // namespace structattn
