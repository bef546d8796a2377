// What follows a prompt becomes the tokens that the specification says: border, moved white space,
// words that grow across the border, branches, windows.

#include "server/engine/prompt/continuation_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "server/engine/prompt/branches.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kBos = 7;
constexpr int32_t kEos = 8;

// A token for each maximal run of letters, with the space before it, and one for each other byte;
// the id is a hash, below 2^20. So letters on both sides of a border grow together. '^' is kBos
// where it is parsed; EOS, which the tokenizer puts behind a text, must never be seen.
class WordTokenizer final : public fake::FakeTokenizer {
 public:
  static int32_t IdOf(std::string_view piece) {
    return static_cast<int32_t>(std::hash<std::string_view>()(piece) % (1 << 20));
  }
  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token&) const override {
    std::string text;
    std::vector<int32_t> owner;
    for (size_t i = 0; i < segments.size(); ++i) {
      text += segments[i].text;
      owner.resize(text.size(), static_cast<int32_t>(i));
    }
    std::vector<Token> tokens;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = begin + 1;
      const bool word = std::isalpha(text[begin]) ||
                        (text[begin] == ' ' && end < text.size() && std::isalpha(text[end]));
      while (word && end < text.size() && std::isalpha(text[end])) ++end;
      const bool bos = text[begin] == '^' && segments[owner[begin]].parse_special;
      const std::string_view piece = std::string_view(text).substr(begin, end - begin);
      tokens.push_back({bos ? kBos : IdOf(piece), owner[begin]});
      begin = end;
    }
    return tokens;
  }
  std::span<const int32_t> special_prefix() const override { return {&kBos, 1}; }
  std::span<const int32_t> special_suffix() const override { return {&kEos, 1}; }
};

const PromptLimits kLimits = {
    .vocabulary_size = 1 << 20, .context_length = 64, .max_prompt_bytes = 1000, .max_segments = 10};

Segment Text(SegmentType type, const std::string& text) {
  return {.type = type,
          .content = text,
          .paraphrase_index =
              type == SegmentType::kQuestion ? std::optional<int32_t>(0) : std::nullopt};
}

Prompt MakePrompt(const std::vector<std::string>& texts,
                  Tokenization tokenization = Tokenization::kJoint) {
  Prompt prompt;
  prompt.tokenization = tokenization;
  for (size_t i = 0; i < texts.size(); ++i) {
    prompt.segments.push_back(
        Text(i + 1 < texts.size() ? SegmentType::kQuestion : SegmentType::kAnswerCue, texts[i]));
  }
  return prompt;
}

std::vector<int32_t> Ids(const std::vector<std::string>& pieces, bool prefix = false) {
  std::vector<int32_t> ids;
  if (prefix) ids.push_back(kBos);
  for (const std::string& piece : pieces) ids.push_back(WordTokenizer::IdOf(piece));
  return ids;
}

ContinuationText Given(const std::string& text, bool parse_special = false) {
  return {text, parse_special};
}

EncodedContinuations Encode(const Prompt& prompt, const std::vector<ContinuationText>& texts) {
  const auto encoded = EncodeContinuations(prompt, 0, texts, WordTokenizer(), kLimits);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  return *encoded;
}

TEST(EncodeContinuations, WhiteSpaceAtTheEndOfThePromptMoves) {
  const Prompt prompt = MakePrompt({"Why?", "A: \n\xE3\x80\x80 "});
  const EncodedContinuations encoded = Encode(prompt, {Given("yes"), Given(" no")});
  ASSERT_EQ(encoded.prompts.size(), 1u);
  EXPECT_EQ(encoded.prompts[0].prompt.token_ids, Ids({"Why", "?", "A", ":"}, true));
  const std::vector<std::string> space = {" ", "\n", "\xE3", "\x80", "\x80"};
  std::vector<std::string> yes = space;
  yes.push_back(" yes");
  std::vector<std::string> no = space;
  no.insert(no.end(), {" ", " no"});
  EXPECT_THAT(encoded.prompts[0].continuations, ElementsAre(Ids(yes), Ids(no)));
}

TEST(EncodeContinuations, WhiteSpaceMovesOutOfWholeSegmentsAndOnlyForText) {
  const Prompt prompt = MakePrompt({"Why? ", " "});
  const EncodedContinuations text = Encode(prompt, {Given("yes")});
  EXPECT_EQ(text.prompts[0].prompt.token_ids, Ids({"Why", "?"}, true));
  EXPECT_THAT(text.prompts[0].continuations[0], Ids({" ", " yes"}));
  const EncodedContinuations ids = Encode(prompt, {ContinuationText{std::vector<int32_t>{3, 4}}});
  EXPECT_EQ(ids.prompts[0].prompt.token_ids, Ids({"Why", "?", " ", " "}, true));
  EXPECT_THAT(ids.prompts[0].continuations[0], ElementsAre(3, 4));
  const EncodedContinuations none = Encode(prompt, {});
  EXPECT_EQ(none.prompts[0].prompt.token_ids, Ids({"Why", "?", " ", " "}, true));
}

TEST(EncodeContinuations, AWordAcrossTheBorderChangesThePrompt) {
  const Prompt prompt = MakePrompt({"Why?", "the ca"});
  const EncodedContinuations encoded =
      Encode(prompt, {Given("t sat"), Given("! no"), Given("t ran")});
  ASSERT_EQ(encoded.prompts.size(), 2u);
  EXPECT_EQ(encoded.prompts[0].prompt.token_ids, Ids({"Why", "?", "the", " ca"}, true));
  EXPECT_THAT(encoded.prompts[0].continuations, ElementsAre(Ids({"!", " no"})));
  EXPECT_EQ(encoded.prompts[1].prompt.token_ids, Ids({"Why", "?", "the", " cat"}, true));
  EXPECT_THAT(encoded.prompts[1].continuations, ElementsAre(Ids({" sat"}), Ids({" ran"})));
  EXPECT_EQ(encoded.places[2].prompt, 1);
  EXPECT_EQ(encoded.places[2].continuation, 1);
  const std::vector<ContinuationText> swallowed = {Given("r")};
  EXPECT_EQ(EncodeContinuations(prompt, 0, swallowed, WordTokenizer(), kLimits).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(EncodeContinuations, PerSegmentEncodesTheContinuationAlone) {
  const Prompt prompt = MakePrompt({"Why?", "the ca "}, Tokenization::kPerSegment);
  const EncodedContinuations encoded = Encode(prompt, {Given("t sat"), Given("x")});
  ASSERT_EQ(encoded.prompts.size(), 1u);
  EXPECT_EQ(encoded.prompts[0].prompt.token_ids, Ids({"Why", "?", "the", " ca"}, true));
  EXPECT_THAT(encoded.prompts[0].continuations, ElementsAre(Ids({" t", " sat"}), Ids({" x"})));
}

TEST(EncodeContinuations, ParseSpecialTokensWhereTheySaySo) {
  for (const Tokenization tokenization : {Tokenization::kJoint, Tokenization::kPerSegment}) {
    const EncodedContinuations encoded =
        Encode(MakePrompt({"Why?", "A:"}, tokenization), {Given("no^"), Given("no^", true)});
    EXPECT_THAT(encoded.prompts[0].continuations,
                ElementsAre(Ids({"no", "^"}), std::vector{WordTokenizer::IdOf("no"), kBos}));
  }
}

TEST(EncodeContinuations, AnEmptyPromptStandsForATokenAndLosesNothingOfTheText) {
  PromptLimits limits = kLimits;
  limits.empty_prompt_token = 9;
  for (const Tokenization tokenization : {Tokenization::kJoint, Tokenization::kPerSegment}) {
    Prompt prompt = MakePrompt({"", " "}, tokenization);
    const std::vector<ContinuationText> texts = {Given("no"), Given("^no", true)};
    auto encoded = EncodeContinuations(prompt, 0, texts, WordTokenizer(), limits);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    ASSERT_EQ(encoded->prompts.size(), 1u);
    EXPECT_THAT(encoded->prompts[0].prompt.token_ids, ElementsAre(kBos));
    EXPECT_EQ(encoded->prompts[0].continuations[0], Ids({" no"}));
    EXPECT_THAT(encoded->prompts[0].continuations[1],
                ElementsAre(WordTokenizer::IdOf(" "), kBos, WordTokenizer::IdOf("no")));
    prompt.add_special_tokens = false;
    encoded = EncodeContinuations(prompt, 0, texts, WordTokenizer(), limits);
    EXPECT_THAT(encoded->prompts[0].prompt.token_ids, ElementsAre(9));
    EXPECT_EQ(encoded->prompts[0].continuations[0], Ids({" no"}));
  }
  const Prompt empty = {.segments = {{.type = SegmentType::kContext, .content = std::string()}}};
  const std::vector<ContinuationText> bos = {Given("^no", true)};
  const auto encoded = EncodeContinuations(empty, 0, bos, WordTokenizer(), limits);
  EXPECT_THAT(encoded->prompts[0].prompt.token_ids, ElementsAre(kBos));
  EXPECT_THAT(encoded->prompts[0].continuations[0], ElementsAre(kBos, WordTokenizer::IdOf("no")));
}

TEST(EncodeContinuations, FillTheContextAndOneTokenMore) {
  PromptLimits limits = kLimits;
  limits.context_length = 6;  // BOS and five others.
  const Prompt prompt = MakePrompt({"Why?", "a b:"});
  const std::vector<ContinuationText> one = {Given(" c")};
  const std::vector<ContinuationText> two = {Given(" c d")};
  const auto encoded = EncodeContinuations(prompt, 0, one, WordTokenizer(), limits);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(encoded->prompts[0].prompt.structure.size(), 6);
  EXPECT_EQ(encoded->prompts[0].continuations[0], Ids({" c"}));
  const absl::Status status = EncodeContinuations(prompt, 0, two, WordTokenizer(), limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST(EncodeBranches, PredictsFromTheLastTokenOfTheGroupOrOfTheCue) {
  const WordTokenizer tokenizer;
  const auto prompt = EncodePrompt(MakePrompt({"a b", "c:"}), 0, tokenizer, kLimits);
  ASSERT_TRUE(prompt.ok());
  const std::vector<BranchText> texts = {
      {0, ""}, {1, ""}, {1, "say it"}, {9, "new^"}, {9, "new^", true}};
  const auto branches = EncodeBranches(texts, *prompt, tokenizer, kLimits);
  ASSERT_TRUE(branches.ok()) << branches.status();
  EXPECT_EQ((*branches)[0].predicted_from, prompt->structure.size() - 1);
  const auto groups = prompt->structure.groups();
  const int32_t from = (*branches)[1].predicted_from;
  EXPECT_EQ(groups[from], 1);
  EXPECT_EQ(groups[from + 1], 0);
  EXPECT_THAT((*branches)[1].cue, IsEmpty());
  EXPECT_EQ((*branches)[2].cue, Ids({"say", " it"}));
  EXPECT_EQ((*branches)[3].cue, Ids({"new", "^"}));
  EXPECT_THAT((*branches)[4].cue, ElementsAre(WordTokenizer::IdOf("new"), kBos));
}

// Against the loop that predicts one token after the other.
TEST(CutIntoWindows, HoldsEveryTokenOnceWithAsMuchBeforeItAsThereIsRoom) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> text(1 + random() % 100);
    for (int32_t& id : text) id = static_cast<int32_t>(random() % 1000);
    const int32_t window_tokens = 1 + static_cast<int32_t>(random() % 40);
    std::vector<int32_t> scored;
    std::vector<int32_t> all = {-5};
    all.insert(all.end(), text.begin(), text.end());
    const std::vector<ScoredPrompt> windows = CutIntoWindows(text, -5, window_tokens);
    for (size_t w = 0; w < windows.size(); ++w) {
      const std::vector<int32_t>& before = windows[w].prompt.token_ids;
      const std::vector<int32_t>& own = windows[w].continuations.at(0);
      EXPECT_EQ(windows[w].prompt.structure.size(), static_cast<int>(before.size()));
      const size_t computed =
          before.size() + own.size() - 1;  // The last one's logits are not needed.
      EXPECT_LE(computed, static_cast<size_t>(window_tokens));
      EXPECT_TRUE(w == 0 || computed == static_cast<size_t>(window_tokens)) << computed;
      const size_t begin = scored.size() + 1;
      for (size_t i = 0; i < before.size(); ++i) {
        EXPECT_EQ(before[i], all[begin - before.size() + i]);
      }
      scored.insert(scored.end(), own.begin(), own.end());
    }
    EXPECT_EQ(scored, text);
  }
}

}  // namespace
}  // namespace structattn::engine
