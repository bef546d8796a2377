// The word scanners on texts where the split patterns are easy to get wrong. Expected words follow
// from reading the patterns; oracle_test.py compares them with the real regex engine.
#include "server/model/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Words(const PreTokenizer& pre_tokenizer, const std::string& text) {
  std::vector<size_t> ends;
  pre_tokenizer.Split(text, &ends);
  std::vector<std::string> words;
  size_t begin = 0;
  for (const size_t end : ends) {
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

const PreTokenizer kGpt2(DigitSplit::kNone, WordPattern::kGpt2);
const PreTokenizer kSmollm2(DigitSplit::kIndividual, WordPattern::kGpt2);
const PreTokenizer kLlama3(DigitSplit::kNone, WordPattern::kLlama3);
const PreTokenizer kQwen2(DigitSplit::kNone, WordPattern::kQwen2);

TEST(PreTokenizer, Gpt2) {
  EXPECT_THAT(Words(kGpt2, ""), ElementsAre());
  EXPECT_THAT(Words(kGpt2, "Hello, it's 12 o'clock"),
              ElementsAre("Hello", ",", " it", "'s", " 12", " o", "'", "clock"));
  EXPECT_THAT(Words(kGpt2, "IT'S"), ElementsAre("IT", "'", "S"));  // Case matters.
  EXPECT_THAT(Words(kGpt2, "a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Words(kGpt2, "a \n b"), ElementsAre("a", " \n", " b"));
  EXPECT_THAT(Words(kGpt2, "a\n"), ElementsAre("a", "\n"));
  EXPECT_THAT(Words(kGpt2, " \u00a0b"), ElementsAre(" ", "\u00a0", "b"));
  EXPECT_THAT(Words(kGpt2, "  "), ElementsAre("  "));
  EXPECT_THAT(Words(kGpt2, "e\u0301t\u00e9"), ElementsAre("e", "\u0301", "t\u00e9"));
}

TEST(PreTokenizer, DigitsCutBeforeThePattern) {
  EXPECT_THAT(Words(kSmollm2, "ab 12 c"), ElementsAre("ab", " ", "1", "2", " c"));
  // The pattern sees the end of the part as the end of the text: all spaces are one word.
  EXPECT_THAT(Words(kSmollm2, "a  1"), ElementsAre("a", "  ", "1"));
  const PreTokenizer contiguous(DigitSplit::kContiguous, WordPattern::kGpt2);
  EXPECT_THAT(Words(contiguous, "a12 \u0663b"), ElementsAre("a", "12", " ", "\u0663", "b"));
}

TEST(PreTokenizer, Llama3AndQwen2) {
  EXPECT_THAT(Words(kLlama3, "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(Words(kQwen2, "12345"), ElementsAre("1", "2", "3", "4", "5"));
  EXPECT_THAT(Words(kQwen2, "IT'S"), ElementsAre("IT", "'S"));
  EXPECT_THAT(Words(kQwen2, "x'\u017fy"), ElementsAre("x", "'\u017f", "y"));  // Folds to s.
  EXPECT_THAT(Words(kQwen2, "(word) -word"), ElementsAre("(word", ")", " -", "word"));
  EXPECT_THAT(Words(kQwen2, "\tword"), ElementsAre("\tword"));
  EXPECT_THAT(Words(kQwen2, "\nword"), ElementsAre("\n", "word"));
  EXPECT_THAT(Words(kQwen2, "a  \r\n \n  b"), ElementsAre("a", "  \r\n \n", " ", " b"));
  EXPECT_THAT(Words(kQwen2, "!!\r\n\nx"), ElementsAre("!!\r\n\n", "x"));
  EXPECT_THAT(Words(kQwen2, " !\n"), ElementsAre(" !\n"));
  EXPECT_THAT(Words(kQwen2, "a   "), ElementsAre("a", "   "));
  EXPECT_THAT(Words(kQwen2, "   1"), ElementsAre("  ", " ", "1"));
}

TEST(PreTokenizer, KnowsItsPatternsByTheirText) {
  EXPECT_EQ(FindWordPattern("\\s+"), WordPattern::kNone);
  EXPECT_EQ(FindWordPattern(""), WordPattern::kNone);
  EXPECT_EQ(FindWordPattern(
                R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"),
            WordPattern::kGpt2);
}

TEST(PreTokenizer, WordsCoverTheTextWhateverItHolds) {
  std::mt19937 random(3);
  const std::vector<char32_t> pool = {'a',   'B',     '1',   ' ',    '\n',   '\r',  '\t',
                                      '\'',  's',     'l',   '!',    0xA0,   0x300, 0x4E00,
                                      0x663, 0x1F600, 0x17F, 0x2028, 0xE000, 0x85};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto size = random() % 12; size > 0; --size) {
      AppendUtf8(pool[random() % pool.size()], &text);
    }
    for (const PreTokenizer& pre_tokenizer : {kGpt2, kSmollm2, kLlama3, kQwen2}) {
      std::string joined;
      for (const std::string& word : Words(pre_tokenizer, text)) {
        ASSERT_FALSE(word.empty());
        ASSERT_TRUE(IsValidUtf8(word));
        joined += word;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(SplitBeforeSymbol, EachOrRunsOnly) {
  std::vector<size_t> ends;
  SplitBeforeSymbol("_a__b", "_", SymbolCut::kBeforeEach, &ends);
  EXPECT_THAT(ends, ElementsAre(2, 3, 5));
  ends.clear();
  SplitBeforeSymbol("_a__b", "_", SymbolCut::kBeforeRun, &ends);
  EXPECT_THAT(ends, ElementsAre(2, 5));
  ends.clear();
  SplitBeforeSymbol("__", "_", SymbolCut::kBeforeRun, &ends);
  EXPECT_THAT(ends, ElementsAre(2));
  ends.clear();
  SplitBeforeSymbol("", "_", SymbolCut::kBeforeEach, &ends);
  EXPECT_THAT(ends, ElementsAre());
}

}  // namespace
}  // namespace structattn
