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
  std::vector<TextSpan> spans, scratch;
  pre_tokenizer.Split(text, &spans, &scratch);
  std::vector<std::string> words;
  for (const TextSpan span : spans) words.push_back(text.substr(span.begin, span.end - span.begin));
  return words;
}

PreTokenizer Of(WordPattern pattern) {
  return PreTokenizer({{.pattern = SplitPattern::Words(pattern)}});
}

PreTokenizer WithDigits(bool individual) {
  return PreTokenizer({{.pattern = SplitPattern::Digits(individual)},
                       {.pattern = SplitPattern::Words(WordPattern::kGpt2)}});
}

PreTokenizer Split(std::string_view regex, SplitBehavior behavior, bool invert = false) {
  return PreTokenizer(
      {{.pattern = *SplitPattern::FromRegex(regex), .behavior = behavior, .invert = invert}});
}

const PreTokenizer kGpt2 = Of(WordPattern::kGpt2);
const PreTokenizer kSmollm2 = WithDigits(/*individual=*/true);
const PreTokenizer kLlama3 = Of(WordPattern::kLlama3);
const PreTokenizer kQwen2 = Of(WordPattern::kQwen2);

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
  EXPECT_THAT(Words(WithDigits(/*individual=*/false), "a12 \u0663b"),
              ElementsAre("a", "12", " ", "\u0663", "b"));
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

TEST(PreTokenizer, EachBehaviourOfASplit) {
  const auto words = [](SplitBehavior behavior, bool invert) {
    return Words(Split("[,;]", behavior, invert), "a,,b;c");
  };
  EXPECT_THAT(words(SplitBehavior::kIsolated, false), ElementsAre("a", ",", ",", "b", ";", "c"));
  EXPECT_THAT(words(SplitBehavior::kRemoved, false), ElementsAre("a", "b", "c"));
  EXPECT_THAT(words(SplitBehavior::kRemoved, true), ElementsAre(",", ",", ";"));
  EXPECT_THAT(words(SplitBehavior::kMergedWithPrevious, false), ElementsAre("a,", ",", "b;", "c"));
  EXPECT_THAT(words(SplitBehavior::kMergedWithNext, false), ElementsAre("a", ",", ",b", ";c"));
  EXPECT_THAT(words(SplitBehavior::kContiguous, false), ElementsAre("a", ",,", "b", ";", "c"));
}

TEST(PreTokenizer, RunsOfOneSet) {
  constexpr auto kIsolated = SplitBehavior::kIsolated;
  EXPECT_THAT(Words(Split("\\s?\\p{L}+", kIsolated), "a  bc1"), ElementsAre("a", " ", " bc", "1"));
  // The space of the set is the prefix where a letter follows, else part of the run.
  EXPECT_THAT(Words(Split("\\s?[\u3000!]+", kIsolated), "a\u3000b\u3000!"),
              ElementsAre("a", "\u3000", "b", "\u3000!"));
  EXPECT_THAT(Words(Split("\\p{N}{1,3}", kIsolated), "12345a"), ElementsAre("123", "45", "a"));
  EXPECT_THAT(Words(Split("[^\\r\\n]+", kIsolated), "ab\n\nc"), ElementsAre("ab", "\n\n", "c"));
  EXPECT_THAT(Words(Split("\\s?\\p{P}+", kIsolated), "a $=!?"), ElementsAre("a $=", "!?"));
}

// A line ends before each line feed, too.
TEST(PreTokenizer, SpacesAtTheEndOfALine) {
  const PreTokenizer spaces = Split("\\s+$", SplitBehavior::kIsolated);
  EXPECT_THAT(Words(spaces, "a  b  "), ElementsAre("a  b", "  "));
  EXPECT_THAT(Words(spaces, "a \n b"), ElementsAre("a", " ", "\n b"));
  EXPECT_THAT(Words(spaces, "a\nb\n"), ElementsAre("a\nb", "\n"));
  EXPECT_THAT(Words(spaces, "a \n \n b"), ElementsAre("a", " \n ", "\n b"));
}

TEST(SplitPattern, KnowsWhatItImplements) {
  for (const std::string_view regex :
       {"\\s", "[\r\n]", "[\\r\\n]", "[a-c\\-\\]]+", " ?[^\\s\\p{L}]+", "\\p{N}{1,3}", "\\s+$",
        "[&]", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}) {
    EXPECT_TRUE(SplitPattern::FromRegex(regex).has_value()) << regex;
  }
  for (const std::string_view regex :
       {"",       "a",         "\\w+",    "[",
        "[]",     "[]]",       "[a",      "[z-a]",
        "[a[b]]", "[a&&b]",    "[\\d]",   "[\\pL]",
        "[a]*",   "[a]{2}",    "[a]{1,}", "[a]{1,99999999999999999999}",
        "[a]$",   "\\s?[a]+$", "[a]+|b",  "\\p{M}",
        "[a]++",  " ?",        "\\s?",    "^[a]"}) {
    EXPECT_FALSE(SplitPattern::FromRegex(regex).has_value()) << regex;
  }
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
  const auto words = [](std::string_view text, SymbolCut cut) {
    std::vector<TextSpan> spans;
    SplitBeforeSymbol(text, "_", cut, &spans);
    std::vector<std::string> result;
    for (const TextSpan span : spans) {
      result.emplace_back(text.substr(span.begin, span.end - span.begin));
    }
    return result;
  };
  EXPECT_THAT(words("_a__b", SymbolCut::kBeforeEach), ElementsAre("_a", "_", "_b"));
  EXPECT_THAT(words("_a__b", SymbolCut::kBeforeRun), ElementsAre("_a", "__b"));
  EXPECT_THAT(words("__", SymbolCut::kBeforeRun), ElementsAre("__"));
  EXPECT_THAT(words("", SymbolCut::kBeforeEach), ElementsAre());
}

}  // namespace
}  // namespace structattn
