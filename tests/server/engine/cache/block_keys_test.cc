// BlockKeys against the definition: blocks with equal keys hold tokens with equal closures, and
// what a block does not see leaves its key as it is.
#include "server/engine/cache/block_keys.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/server/engine/cache/closures.h"

namespace structattn::engine {
namespace {

using closures::Closures;
using closures::Tokens;

constexpr int32_t kBlockSize = 4;

Tokens Make(RulePreset rule, PositionPolicy positions = PositionPolicy::kSequential) {
  return {.structure = Structure(RuleTable::Preset(rule), positions)};
}

BlockKeys KeysOf(const Tokens& tokens, std::string_view salt = "") {
  BlockKeys keys(kBlockSize, salt);
  keys.Extend(tokens.view());
  return keys;
}

// The key of the block that token `index` lies in.
BlockKey KeyAt(const BlockKeys& keys, int32_t index) {
  for (int32_t block = 0; block < keys.closed(); ++block) {
    if (index < keys.tokens(block).end) return keys.key(block);
  }
  ADD_FAILURE() << "no key at token " << index;
  return {};
}

TEST(BlockKeysTest, CutsRunsIntoBlocksAndClosesWhatCannotGrow) {
  Tokens tokens = Make(RulePreset::kIsolated);
  tokens.AppendText(0, "abcdefghi");
  tokens.AppendText(1, "jk");
  BlockKeys keys = KeysOf(tokens);
  ASSERT_EQ(keys.blocks(), 4);
  EXPECT_EQ(keys.closed(), 3);
  EXPECT_EQ(keys.tokens(2).begin, 8);
  EXPECT_EQ(keys.tokens(2).end, 9);
  EXPECT_EQ(keys.tokens(3).begin, 9);
  tokens.AppendText(1, "lm");
  keys.Extend(tokens.view());
  EXPECT_EQ(keys.blocks(), 4);
  EXPECT_EQ(keys.closed(), 4);
  tokens.AppendText(1, "n");
  tokens.AppendText(0, "o");
  keys.Extend(tokens.view());
  EXPECT_EQ(keys.blocks(), 6);
  EXPECT_EQ(keys.closed(), 5);
}

TEST(BlockKeysTest, AQuestionUnderAnotherInstructionOfEqualLengthKeepsItsKey) {
  for (const RulePreset rule : {RulePreset::kIsolated, RulePreset::kAnchored}) {
    Tokens one = Make(rule);
    one.AppendText(0, "Translate this");
    Tokens two = Make(rule);
    two.AppendText(0, "Tell me please");
    for (Tokens* tokens : {&one, &two}) {
      tokens->AppendText(1, "question");
      tokens->AppendText(2, "paraphra");
    }
    EXPECT_EQ(KeyAt(KeysOf(one), 14), KeyAt(KeysOf(two), 14));
    EXPECT_EQ(KeyAt(KeysOf(one), 22), KeyAt(KeysOf(two), 22));
    EXPECT_NE(KeyAt(KeysOf(one), 0), KeyAt(KeysOf(two), 0));
  }
}

TEST(BlockKeysTest, UnderSharedTheInstructionIsPartOfTheQuestion) {
  Tokens one = Make(RulePreset::kShared);
  one.AppendText(0, "Translate this");
  Tokens two = Make(RulePreset::kShared);
  two.AppendText(0, "Tell me please");
  one.AppendText(1, "question");
  two.AppendText(1, "question");
  EXPECT_NE(KeyAt(KeysOf(one), 14), KeyAt(KeysOf(two), 14));
}

TEST(BlockKeysTest, WhatIsSeenOnlyThroughAnotherTokenCounts) {
  // Group 2 sees group 0, and group 0 has seen group 1.
  const auto make = [](std::string_view first) {
    Tokens tokens = Make(RulePreset::kShared, PositionPolicy::kAligned);
    tokens.AppendText(1, first);
    tokens.AppendText(0, ".");
    tokens.AppendText(2, "last");
    return KeysOf(tokens);
  };
  EXPECT_NE(KeyAt(make("abcd"), 5), KeyAt(make("abce"), 5));
}

TEST(BlockKeysTest, AnAlignedSubsetOfTheParaphrasesKeepsItsKeys) {
  const auto make = [](std::vector<int> groups) {
    Tokens tokens = Make(RulePreset::kIsolated, PositionPolicy::kAligned);
    tokens.AppendText(0, "instr");
    for (const int group : groups) tokens.AppendText(group, "question" + std::to_string(group));
    return KeysOf(tokens);
  };
  const BlockKeys all = make({1, 2, 3, 4});
  const BlockKeys some = make({2, 4, 1});
  EXPECT_EQ(KeyAt(some, 5), KeyAt(all, 5 + 9));
  EXPECT_EQ(KeyAt(some, 5 + 4), KeyAt(all, 5 + 9 + 4));
  EXPECT_EQ(KeyAt(some, 5 + 9), KeyAt(all, 5 + 27));
}

TEST(BlockKeysTest, AContinuationKeepsTheKeysOfPromptAndGeneratedTokens) {
  Tokens grown = Make(RulePreset::kAnchored);
  grown.AppendText(0, "ins");
  grown.AppendText(1, "abcdefg");
  BlockKeys keys(kBlockSize, "");
  keys.Extend(grown.view());
  for (const char letter : std::string("the answer")) {
    grown.Append(0, letter);
    keys.Extend(grown.view());
  }
  const BlockKeys at_once = KeysOf(grown);
  ASSERT_EQ(keys.closed(), at_once.closed());
  for (int32_t block = 0; block < keys.closed(); ++block) {
    EXPECT_EQ(keys.key(block), at_once.key(block));
  }
  grown.generated_begin = 10;  // A device on which generated tokens are computed apart.
  EXPECT_EQ(KeyAt(KeysOf(grown), 9), KeyAt(at_once, 9));
  EXPECT_NE(KeyAt(KeysOf(grown), 10), KeyAt(at_once, 10));
}

TEST(BlockKeysTest, OnlyEqualSaltsShare) {
  Tokens tokens = Make(RulePreset::kCausal);
  tokens.AppendText(0, "abcd");
  EXPECT_EQ(KeyAt(KeysOf(tokens, "tenant"), 0), KeyAt(KeysOf(tokens, "tenant"), 0));
  EXPECT_NE(KeyAt(KeysOf(tokens, "tenant"), 0), KeyAt(KeysOf(tokens, "tenanu"), 0));
  EXPECT_NE(KeyAt(KeysOf(tokens, "tenant"), 0), KeyAt(KeysOf(tokens), 0));
}

Tokens RandomTokens(std::mt19937& random) {
  RuleTable rule = RuleTable::Preset(static_cast<RulePreset>(random() % 4));
  if (random() % 3 == 0) {
    for (uint64_t& row : rule.visible) row ^= random() & random() & 0xf;
  }
  Tokens tokens = {.structure = Structure(rule, static_cast<PositionPolicy>(random() % 2))};
  for (int runs = 1 + static_cast<int>(random() % 6); runs > 0; --runs) {
    const int group = static_cast<int>(random() % 4);
    const int length = 1 + static_cast<int>(random() % 6);
    const int32_t first = static_cast<int32_t>(random() % 2);  // Few texts: many are equal.
    for (int i = 0; i < length; ++i) tokens.Append(group, first + i);
  }
  return tokens;
}

TEST(BlockKeysTest, WindowsAndRopeLengthsAreInTheKey) {
  // Group 2 sees itself and group 0; of group 1, what lies between, only how long it is.
  const auto make = [](std::string_view between, bool gaps_matter) {
    Tokens tokens = Make(RulePreset::kShared);
    tokens.index_gaps_matter = gaps_matter;
    tokens.AppendText(0, "abcd");
    tokens.AppendText(1, between);
    tokens.AppendText(2, "efgh");
    return KeysOf(tokens).key(2);
  };
  EXPECT_EQ(make("xy", false), make("xy", false));
  EXPECT_EQ(make("xy", true), make("zw", true));
  EXPECT_NE(make("xy", true), make("xyz", true));
  Tokens tokens = Make(RulePreset::kCausal);
  tokens.AppendText(0, "abcd");
  BlockKeys plain(kBlockSize, "");
  plain.Extend(tokens.view());
  SequenceTokens longer = tokens.view();
  longer.rope_length = 5000;
  BlockKeys stretched(kBlockSize, "");
  stretched.Extend(longer);
  EXPECT_NE(plain.key(0), stretched.key(0));
}

// With and without a window.
class EqualKeysTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Gaps, EqualKeysTest, testing::Bool());

TEST_P(EqualKeysTest, EqualKeysMeanEqualClosures) {
  std::mt19937 random(1);
  Closures closures;
  std::map<BlockKey, std::vector<int>> closures_of;
  int hits = 0;
  for (int prompt = 0; prompt < 4000; ++prompt) {
    SCOPED_TRACE(prompt);
    Tokens tokens = RandomTokens(random);
    tokens.index_gaps_matter = GetParam();
    const std::vector<int> numbers = closures.NumberAll(tokens);
    const BlockKeys keys = KeysOf(tokens);
    for (int32_t block = 0; block < keys.closed(); ++block) {
      const auto [begin, end, group] = keys.tokens(block);
      const std::vector<int> inside(numbers.begin() + begin, numbers.begin() + end);
      const auto [known, is_new] = closures_of.try_emplace(keys.key(block), inside);
      ASSERT_EQ(known->second, inside) << "one key, two contents";
      hits += !is_new;
    }
  }
  EXPECT_GT(hits, 2000);
}

}  // namespace
}  // namespace structattn::engine
