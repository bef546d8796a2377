// Finding added tokens: the longest of the leftmost, their flags, and what is left between them.
#include "server/model/tokenizer/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace structattn {
namespace {

using ::testing::ElementsAre;

// Parts as text, tokens in brackets.
std::vector<std::string> Split(const AddedTokenMatcher& matcher, const std::string& text,
                               bool allow_special = false) {
  std::vector<std::string> result;
  for (const TextPart& part :
       matcher.Split(text, [allow_special](size_t, size_t) { return allow_special; })) {
    const std::string piece = text.substr(part.begin, part.end - part.begin);
    result.push_back(part.id < 0 ? piece : "[" + piece + "]");
  }
  return result;
}

AddedTokenMatcher Matcher(const std::vector<AddedToken>& tokens) {
  AddedTokenMatcher matcher;
  for (const AddedToken& token : tokens) matcher.Add(token.content, token);
  return matcher;
}

AddedToken Plain(const std::string& content) {
  AddedToken token;
  token.content = content;
  return token;
}

TEST(AddedTokenMatcher, LeftmostLongest) {
  const auto matcher = Matcher({Plain("ab"), Plain("abc"), Plain("bcd"), Plain("b")});
  EXPECT_THAT(Split(matcher, "xabcdb"), ElementsAre("x", "[abc]", "d", "[b]"));
  EXPECT_THAT(Split(matcher, "abab"), ElementsAre("[ab]", "[ab]"));
  EXPECT_THAT(Split(matcher, ""), ElementsAre());
  EXPECT_THAT(Split(AddedTokenMatcher(), "ab"), ElementsAre("ab"));
}

TEST(AddedTokenMatcher, AForbiddenSpecialTokenHidesWhatIsInIt) {
  AddedToken special = Plain("<ab>");
  special.special = true;
  const auto matcher = Matcher({special, Plain("ab")});
  EXPECT_THAT(Split(matcher, "<ab>ab"), ElementsAre("<ab>", "[ab]"));
  EXPECT_THAT(Split(matcher, "<ab>ab", true), ElementsAre("[<ab>]", "[ab]"));
}

TEST(AddedTokenMatcher, StripsSpaces) {
  AddedToken left = Plain("<l>");
  left.lstrip = true;
  AddedToken right = Plain("<r>");
  right.rstrip = true;
  const auto matcher = Matcher({left, right});
  EXPECT_THAT(Split(matcher, "a \u00a0\n<l> b"), ElementsAre("a", "[ \u00a0\n<l>]", " b"));
  EXPECT_THAT(Split(matcher, "a <r> \t b"), ElementsAre("a ", "[<r> \t ]", "b"));
  // Spaces that the token before swallowed are not swallowed again.
  EXPECT_THAT(Split(matcher, "<r>  <l>"), ElementsAre("[<r>  ]", "[<l>]"));
}

TEST(AddedTokenMatcher, SingleWordsStandAlone) {
  AddedToken word = Plain("the");
  word.single_word = true;
  const auto matcher = Matcher({word});
  EXPECT_THAT(Split(matcher, "the other, the_ \u00e9the the"),
              ElementsAre("[the]", " other, the_ \u00e9the ", "[the]"));
}

}  // namespace
}  // namespace structattn
