// The trie against a search through all tokens.
#include "server/model/tokenizer/token_trie.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace structattn {
namespace {

using Found = std::vector<std::pair<size_t, int32_t>>;

Found Prefixes(const TokenTrie& trie, const std::string& text) {
  Found found;
  trie.ForEachPrefix(text, [&](size_t size, int32_t id) { found.emplace_back(size, id); });
  return found;
}

TEST(TokenTrie, FindsTheShorterBeforeTheLonger) {
  const TokenTrie trie({"abcdefgh", "a", "", "abc", "abd", "\xFF"});
  EXPECT_EQ(Prefixes(trie, "abcdefghi"), (Found{{1, 1}, {3, 3}, {8, 0}}));
  EXPECT_EQ(Prefixes(trie, "abcdefg"), (Found{{1, 1}, {3, 3}}));
  EXPECT_EQ(Prefixes(trie, "ab"), (Found{{1, 1}}));
  EXPECT_EQ(Prefixes(trie, "\xFF\xFF"), (Found{{1, 5}}));
  EXPECT_EQ(Prefixes(trie, ""), Found());
  EXPECT_EQ(Prefixes(TokenTrie({}), "a"), Found());
}

TEST(TokenTrie, AgreesWithASearchThroughAllTokens) {
  std::mt19937 random(5);
  const auto text = [&random](size_t most) {
    std::string result;
    for (size_t size = random() % (most + 1); size > 0; --size) {
      result += static_cast<char>(random() % 4 == 0 ? 0xFE + random() % 2 : 'a');
    }
    return result;
  };
  for (int round = 0; round < 300; ++round) {
    std::set<std::string> unique;
    for (int i = 0; i < 12; ++i) unique.insert(text(12));
    const std::vector<std::string> tokens(unique.begin(), unique.end());
    const TokenTrie trie(tokens);
    for (int i = 0; i < 20; ++i) {
      const std::string sought = text(16);
      Found expected;
      for (size_t size = 1; size <= sought.size(); ++size) {
        const auto found = std::find(tokens.begin(), tokens.end(), sought.substr(0, size));
        if (found != tokens.end()) {
          expected.emplace_back(size, static_cast<int32_t>(found - tokens.begin()));
        }
      }
      ASSERT_EQ(Prefixes(trie, sought), expected) << testing::PrintToString(sought);
    }
  }
}

}  // namespace
}  // namespace structattn
