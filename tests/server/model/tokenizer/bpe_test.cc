// Long words, which are merged in windows: against one merge of the whole, on texts made so that a
// token depends on what is far behind it, and without more work than a few times the text.
#include "server/model/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace structattn {
namespace {

constexpr std::string_view kLetters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

void AddMerge(const std::string& left, const std::string& right, BpeConfig* config) {
  const auto next_id = static_cast<int32_t>(config->vocabulary.size());
  config->vocabulary.emplace_back(left + right, next_id);
  config->merges.emplace_back(left, right);
}

BpeConfig Letters() {
  BpeConfig config;
  for (const char letter : kLetters) {
    const auto next_id = static_cast<int32_t>(config.vocabulary.size());
    config.vocabulary.emplace_back(std::string(1, letter), next_id);
  }
  return config;
}

// A text in which each pair of letters occurs once: a de Bruijn sequence, cut open.
std::string EveryPairOnce() {
  std::string text;
  for (size_t i = 0; i < kLetters.size(); ++i) {
    text += kLetters[i];
    for (size_t j = i + 1; j < kLetters.size(); ++j) (text += kLetters[i]) += kLetters[j];
  }
  return text;
}

// Every pair of `text` merges, the last one first. So its last two letters are merged first, and
// whether a letter joins the one before it is decided by how many letters follow.
BpeConfig DescendingPairs(const std::string& text) {
  BpeConfig config = Letters();
  for (size_t i = text.size() - 1; i > 0; --i) {
    AddMerge(text.substr(i - 1, 1), text.substr(i, 1), &config);
  }
  return config;
}

// Tokens as in the vocabulary: sums of earlier ones, up to many letters long.
BpeConfig RandomMerges(uint32_t letters, int merges, std::mt19937* random) {
  BpeConfig config = Letters();
  std::vector<std::string> tokens;
  for (uint32_t i = 0; i < letters; ++i) tokens.emplace_back(1, kLetters[i]);
  while (merges > 0) {
    const std::string left = tokens[(*random)() % tokens.size()];
    const std::string right = tokens[(*random)() % tokens.size()];
    if (std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
    tokens.push_back(left + right);
    AddMerge(left, right, &config);
    --merges;
  }
  return config;
}

std::string RandomWord(size_t size, uint32_t letters, std::mt19937* random) {
  std::string word(size, ' ');
  for (char& c : word) c = kLetters[(*random)() % letters];
  return word;
}

std::vector<std::pair<int32_t, uint32_t>> IdsAndEnds(const std::vector<BpeSymbol>& tokens) {
  std::vector<std::pair<int32_t, uint32_t>> result;
  for (const BpeSymbol& token : tokens) result.emplace_back(token.id, token.end);
  return result;
}

// Encodes `word` both ways; the symbols merged for each of its bytes.
double CheckWord(const BpeConfig& config, const std::string& word) {
  const std::unique_ptr<Bpe> bpe = *Bpe::Create(config);
  StopPoll never{std::stop_token()};
  WordScratch scratch;
  bpe->EncodeWord(word, &never, &scratch);

  MergeTable table;
  table.Reserve(config.merges.size());
  for (uint32_t rank = 0; rank < config.merges.size(); ++rank) {
    const auto& [left, right] = config.merges[rank];
    table.Set(bpe->vocabulary().Find(left), bpe->vocabulary().Find(right),
              {rank, bpe->vocabulary().Find(left + right)});
  }
  std::vector<BpeSymbol> whole;
  for (uint32_t i = 0; i < word.size(); ++i) {
    whole.push_back({bpe->vocabulary().Find(word.substr(i, 1)), i, i + 1});
  }
  BpeMerger().MergeSymbols(table, &whole);
  EXPECT_EQ(IdsAndEnds(scratch.symbols), IdsAndEnds(whole));
  return static_cast<double>(scratch.merger.symbols_seen()) / static_cast<double>(word.size());
}

TEST(LongWord, IsMergedAsAWhole) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    const uint32_t letters = 1 + random() % 4;
    const int merges = letters == 1 ? 8 : static_cast<int>(random() % 80);
    const BpeConfig config = RandomMerges(letters, merges, &random);
    const size_t size = 900 + random() % 9000;
    CheckWord(config, RandomWord(size, letters, &random));
    if (testing::Test::HasFailure()) FAIL() << "round " << round;
  }
}

TEST(LongWord, MayDependOnWhatIsFarBehind) {
  const std::string descent = EveryPairOnce();
  ASSERT_GT(descent.size(), 3500u);
  const BpeConfig config = DescendingPairs(descent);
  for (size_t cut = 0; cut < 4; ++cut) {
    std::string word = descent.substr(0, descent.size() - cut);
    CheckWord(config, word);
    for (size_t i = 0; i < 6; ++i) word += descent.substr(i * cut);
    CheckWord(config, word);
  }
}

TEST(LongWord, CostsAsMuchAByteAsAShortOne) {
  std::mt19937 random(11);
  const std::string descent = EveryPairOnce();
  const BpeConfig pairs = DescendingPairs(descent);
  EXPECT_LT(CheckWord(pairs, RandomWord(1 << 18, 62, &random)), 1.25);
  // Windows grow until one holds what decides its tokens, and then no further.
  std::string word;
  while (word.size() < (1 << 18)) word += descent;
  EXPECT_LT(CheckWord(pairs, word), 1.5);
  EXPECT_LT(CheckWord(RandomMerges(1, 9, &random), std::string(1 << 18, 'a')), 1.25);
}

TEST(LongWord, StopsBetweenWindows) {
  const std::unique_ptr<Bpe> bpe = *Bpe::Create(DescendingPairs(EveryPairOnce()));
  std::stop_source source;
  source.request_stop();
  StopPoll stop(source.get_token());
  WordScratch scratch;
  bpe->EncodeWord(std::string(1 << 20, 'a'), &stop, &scratch);
  EXPECT_LT(scratch.merger.symbols_seen(), size_t{1} << 15);
}

// Characters without a token that wait behind byte tokens, fused or not, at the windows' borders.
TEST(LongWord, MayHoldUnknownCharacters) {
  for (const bool fused : {false, true}) {
    std::mt19937 random(13);
    BpeConfig config = RandomMerges(3, 40, &random);
    const auto size = static_cast<int32_t>(config.vocabulary.size());
    config.vocabulary.emplace_back("<unk>", size);
    config.vocabulary.emplace_back("<0x21>", size + 1);  // "!"
    config.unk_token = "<unk>";
    config.fuse_unk = fused;
    config.byte_fallback = true;
    const std::unique_ptr<Bpe> bpe = *Bpe::Create(config);
    StopPoll never{std::stop_token()};
    for (int round = 0; round < 50; ++round) {
      std::string word;
      while (word.size() < 5000)
        word += RandomWord(random() % 12, 3, &random) + "?!?!!!??"[random() % 8];
      WordScratch scratch;
      bpe->EncodeWord(word, &never, &scratch);
      // Known letters are borders for unknown characters, so parts that begin and end with letters
      // that never merge have the same tokens alone.
      std::vector<int32_t> ids, of_parts;
      for (const BpeSymbol& token : scratch.symbols) ids.push_back(token.id);
      for (size_t begin = 0; begin < word.size();) {
        size_t end = word.find_first_of("?!", begin);
        end = std::min(word.find_first_not_of("?!", end), word.size());
        bpe->EncodeWord(std::string_view(word).substr(begin, end - begin), &never, &scratch);
        for (const BpeSymbol& token : scratch.symbols) of_parts.push_back(token.id);
        begin = end;
      }
      ASSERT_EQ(ids, of_parts) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace structattn
