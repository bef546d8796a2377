// The Unigram model on vocabularies made for its edges. Every value is what PyPI `tokenizers` gives
// for the same vocabulary and text.
#include "server/model/tokenizer/unigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace structattn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

UnigramConfig Config(const std::vector<std::pair<std::string, double>>& vocabulary) {
  UnigramConfig config{.vocabulary = {}, .scores = {}, .unk_id = 0, .byte_fallback = false};
  for (const auto& [text, score] : vocabulary) {
    config.vocabulary.emplace_back(text, static_cast<int32_t>(config.scores.size()));
    config.scores.push_back(score);
  }
  return config;
}

UnigramConfig WithBytes() {
  UnigramConfig config = Config({{"<unk>", 0.0},
                                 {"a", -1.0},
                                 {"b", -2.0},
                                 {"ab", -2.5},
                                 {"<0x63>", -3.0},
                                 {"<0xE3>", -3.0},
                                 {"xy", -1.0}});
  config.byte_fallback = true;
  return config;
}

std::vector<int32_t> Ids(const UnigramConfig& config, const std::string& word) {
  const auto model = Unigram::Create(config);
  EXPECT_TRUE(model.ok()) << model.status();
  StopPoll never{std::stop_token()};
  WordScratch scratch;
  (*model)->EncodeWord(word, &never, &scratch);
  std::vector<int32_t> ids;
  size_t end = 0;
  for (const BpeSymbol& symbol : scratch.symbols) {
    EXPECT_EQ(symbol.begin, end);
    end = symbol.end;
    ids.push_back(symbol.id);
  }
  EXPECT_EQ(end, word.size());
  return ids;
}

TEST(Unigram, TakesTheLargestSum) {
  EXPECT_THAT(Ids(WithBytes(), ""), ElementsAre());
  EXPECT_THAT(Ids(WithBytes(), "ab"), ElementsAre(3));
  EXPECT_THAT(Ids(Config({{"<unk>", 0.0}, {"a", -1.0}, {"b", -2.0}, {"ab", -3.5}}), "ab"),
              ElementsAre(1, 2));
  // Of equal sums, the token that begins first.
  EXPECT_THAT(Ids(Config({{"<unk>", 0.0}, {"a", -1.0}, {"b", -2.0}, {"ab", -3.0}}), "ab"),
              ElementsAre(3));
}

TEST(Unigram, UnknownCharactersAreOneTokenOrBytes) {
  EXPECT_THAT(Ids(WithBytes(), "abc"), ElementsAre(3, 4));
  EXPECT_THAT(Ids(WithBytes(), "ccab"), ElementsAre(4, 4, 3));
  EXPECT_THAT(Ids(WithBytes(), "xx"), ElementsAre(0));
  EXPECT_THAT(Ids(WithBytes(), "xyx"), ElementsAre(6, 0));
  EXPECT_THAT(Ids(WithBytes(), "\u3042"), ElementsAre(0));
  EXPECT_THAT(Ids(WithBytes(), "cdc"), ElementsAre(0));
  EXPECT_THAT(Ids(WithBytes(), "a<unk>b"), ElementsAre(1, 0, 2));
  EXPECT_THAT(Ids(WithBytes(), "<unk>x<unk>"), ElementsAre(0));
}

TEST(Unigram, ALongWordNeedsNoMoreThanTheRing) {
  std::string word;
  std::vector<int32_t> expected;
  for (int i = 0; i < 5000; ++i) {
    word += "abxy";
    expected.insert(expected.end(), {3, 6});
  }
  EXPECT_EQ(Ids(WithBytes(), word), expected);
}

TEST(Unigram, RefusesBrokenModels) {
  const auto refusal = [](const UnigramConfig& config) {
    return std::string(Unigram::Create(config).status().message());
  };
  EXPECT_THAT(refusal(Config({})), HasSubstr("model.vocab is empty"));
  EXPECT_THAT(refusal(Config({{"a", 0.0}, {"a", 0.0}})), HasSubstr("token \"a\" is there twice"));
  EXPECT_THAT(refusal(Config({{"a", std::numeric_limits<double>::infinity()}})),
              HasSubstr("model.vocab[0]: its score is no finite number"));
  EXPECT_THAT(refusal(Config({{std::string(2000, 'a'), 0.0}})), HasSubstr("2000 bytes"));
  UnigramConfig config = Config({{"a", 0.0}});
  config.unk_id = 1;
  EXPECT_THAT(refusal(config), HasSubstr("model.unk_id: 1: allowed are 0 to 0"));
}

}  // namespace
}  // namespace structattn
