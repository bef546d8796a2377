// Segments to tokens, groups and positions; and every refusal with its field, reason and numbers.
#include "server/engine/prompt/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <string>
#include <vector>

#include "server/engine/field_error.h"

namespace structattn::engine {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int32_t kBos = 256;
constexpr int32_t kEos = 257;

// One token a byte, '^' a BOS where it is parsed; BOS before and EOS behind.
class ByteTokenizer : public Tokenizer {
 public:
  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token&) const override {
    std::vector<Token> tokens;
    for (size_t s = 0; s < segments.size(); ++s) {
      for (const char c : segments[s].text) {
        const bool bos = c == '^' && segments[s].parse_special;
        tokens.push_back({bos ? kBos : static_cast<uint8_t>(c), static_cast<int32_t>(s)});
      }
    }
    return tokens;
  }
  std::span<const int32_t> special_prefix() const override { return {&kBos, 1}; }
  std::span<const int32_t> special_suffix() const override { return {&kEos, 1}; }
  int32_t vocabulary_size() const override { return 258; }
  int32_t plain_vocabulary_size() const override { return 258; }
  std::span<const std::string> warnings() const override { return {}; }
  bool IsSpecial(int32_t id) const override { return id >= kBos; }
  std::string TokenBytes(int32_t id) const override {
    return id < kBos ? std::string(1, static_cast<char>(id)) : "";
  }
  int32_t FindToken(std::string_view) const override { return -1; }
  std::unique_ptr<StreamDecoder> NewStreamDecoder() const override { return nullptr; }
};

const PromptLimits kLimits = {
    .vocabulary_size = 300, .context_length = 40, .max_prompt_bytes = 50, .max_segments = 6};

Segment Text(SegmentType type, const std::string& text) { return {.type = type, .content = text}; }

Segment Question(const std::string& text, std::optional<int32_t> index) {
  return {.type = SegmentType::kQuestion, .content = text, .paraphrase_index = index};
}

Segment Ids(const std::vector<int32_t>& ids) {
  return {.type = SegmentType::kContext, .content = ids};
}

Prompt TwoQuestions() {
  return {.segments = {Text(SegmentType::kInstruction, "in"), Question("ab", 0),
                       Text(SegmentType::kSeparator, "-"), Question("cd", 1), Question("e", 0)}};
}

absl::StatusOr<EncodedPrompt> Encode(const Prompt& prompt,
                                     std::optional<int32_t> generated_group = 0) {
  if (const absl::Status status = CheckPrompt(prompt, kLimits); !status.ok()) return status;
  return EncodePrompt(prompt, generated_group, ByteTokenizer(), kLimits);
}

std::vector<int> Groups(const EncodedPrompt& prompt) {
  return {prompt.structure.groups().begin(), prompt.structure.groups().end()};
}

TEST(PromptTest, GivesEveryTokenItsSegmentAndGroup) {
  const absl::StatusOr<EncodedPrompt> prompt = Encode(TwoQuestions());
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_THAT(prompt->token_ids, ElementsAre(kBos, 'i', 'n', 'a', 'b', '-', 'c', 'd', 'e'));
  EXPECT_THAT(prompt->segments, ElementsAre(-1, 0, 0, 1, 1, 2, 3, 3, 4));
  EXPECT_THAT(Groups(*prompt), ElementsAre(0, 0, 0, 1, 1, 0, 2, 2, 1));
  EXPECT_TRUE(MaySee(prompt->structure, 8, 3));   // A repeated index is the same group.
  EXPECT_FALSE(MaySee(prompt->structure, 3, 2));  // ANCHORED: group 1 sees only itself.
  EXPECT_TRUE(MaySee(prompt->structure, 6, 4));
}

TEST(PromptTest, PerSegmentMixesTextAndIdsWithSpecialTokensOnceBefore) {
  const absl::StatusOr<EncodedPrompt> prompt = Encode(
      {.segments = {Ids({7, 299}), Question("q", 3)}, .tokenization = Tokenization::kPerSegment});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_THAT(prompt->token_ids, ElementsAre(kBos, 7, 299, 'q'));
  EXPECT_THAT(Groups(*prompt), ElementsAre(0, 0, 0, 4));
}

TEST(PromptTest, APromptThatBeginsWithBosGetsNoSecondOne) {
  const Segment plain = Text(SegmentType::kContext, "^a");
  Segment parsed = plain;
  parsed.parse_special = true;
  const Segment empty = Text(SegmentType::kInstruction, "");
  const auto ids = [](std::vector<Segment> segments, Tokenization tokenization) {
    return Encode({.segments = std::move(segments), .tokenization = tokenization})->token_ids;
  };
  for (const Tokenization tokenization : {Tokenization::kJoint, Tokenization::kPerSegment}) {
    EXPECT_THAT(ids({empty, parsed, plain}, tokenization), ElementsAre(kBos, 'a', '^', 'a'));
    EXPECT_THAT(ids({plain, parsed}, tokenization), ElementsAre(kBos, '^', 'a', kBos, 'a'));
  }
  EXPECT_THAT(ids({parsed, Ids({7})}, Tokenization::kPerSegment), ElementsAre(kBos, 'a', 7));
  EXPECT_THAT(ids({Ids({kBos, 7}), plain}, Tokenization::kPerSegment),
              ElementsAre(kBos, 7, '^', 'a'));
  // It is a token of the segment that holds it.
  Segment question = Question("^q", 3);
  question.parse_special = true;
  const absl::StatusOr<EncodedPrompt> prompt = Encode({.segments = {question}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_THAT(prompt->segments, ElementsAre(0, 0));
  EXPECT_THAT(Groups(*prompt), ElementsAre(4, 4));
}

TEST(PromptTest, NoSpecialTokensWhenThePromptWantsNone) {
  for (const Tokenization tokenization : {Tokenization::kJoint, Tokenization::kPerSegment}) {
    const absl::StatusOr<EncodedPrompt> prompt =
        Encode({.segments = {Text(SegmentType::kContext, "c")},
                .tokenization = tokenization,
                .add_special_tokens = false});
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    EXPECT_THAT(prompt->token_ids, ElementsAre('c'));
  }
}

TEST(PromptTest, AnEmptyPromptIsItsSpecialTokensOrTheTokenThatStandsForIt) {
  PromptLimits limits = kLimits;
  limits.empty_prompt_token = 42;
  Prompt prompt = {.segments = {Text(SegmentType::kContext, "")}};
  absl::StatusOr<EncodedPrompt> encoded = EncodePrompt(prompt, 0, ByteTokenizer(), limits);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_THAT(encoded->token_ids, ElementsAre(kBos));
  prompt.add_special_tokens = false;
  encoded = EncodePrompt(prompt, 0, ByteTokenizer(), limits);
  EXPECT_THAT(encoded->token_ids, ElementsAre(42));
  EXPECT_THAT(encoded->segments, ElementsAre(-1));
  EXPECT_THAT(Groups(*encoded), ElementsAre(0));
  prompt = {.segments = {Ids({})}};
  EXPECT_THAT(EncodePrompt(prompt, 0, ByteTokenizer(), limits)->token_ids, ElementsAre(42));
}

TEST(PromptTest, NoSpecialTokensWhenEverySegmentIsIds) {
  for (const Tokenization tokenization : {Tokenization::kJoint, Tokenization::kPerSegment}) {
    const absl::StatusOr<EncodedPrompt> prompt =
        Encode({.segments = {Ids({7}), Ids({}), Ids({8})}, .tokenization = tokenization});
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    EXPECT_THAT(prompt->token_ids, ElementsAre(7, 8));
    EXPECT_THAT(prompt->segments, ElementsAre(0, 2));
  }
}

TEST(PromptTest, ExplicitGroupsReplaceTheParaphrases) {
  Segment question = Question("q", 5);
  question.group = 2;
  Segment context = Text(SegmentType::kContext, "c");
  context.group = 1;
  const absl::StatusOr<EncodedPrompt> prompt =
      Encode({.segments = {context, question}, .rule = RuleRows{{0, 1, 2}, {1}, {2}}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_THAT(Groups(*prompt), ElementsAre(0, 1, 2));
}

TEST(PromptTest, AQuestionWithAnExplicitGroupNeedsNoParaphraseIndex) {
  Segment question = Question("q", std::nullopt);
  question.group = 1;
  EXPECT_TRUE(Encode({.segments = {question}, .rule = RuleRows{{0}, {1}}}).ok());
}

TEST(PromptTest, LargestGroupAndFullContextAreAllowed) {
  EXPECT_TRUE(Encode({.segments = {Question("q", 62)}}).ok());
  EXPECT_TRUE(Encode({.segments = {Text(SegmentType::kContext, std::string(39, 'x'))}}).ok());
}

TEST(PromptTest, UnusedGroupsNeedNotSeeThemselves) {
  EXPECT_TRUE(
      Encode({.segments = {Text(SegmentType::kContext, "c")}, .rule = RuleRows{{0}, {}, {5}}})
          .ok());
}

TEST(PromptTest, InspectionNeedsNoRowForGeneratedTokens) {
  const std::vector<Segment> ids = {
      {.type = SegmentType::kContext, .content = std::vector<int32_t>{1}, .group = 1}};
  const Prompt prompt{.segments = ids, .rule = RuleRows{{}, {1}}};
  EXPECT_TRUE(Encode(prompt, std::nullopt).ok());
  EXPECT_FALSE(Encode(prompt, 0).ok());
  EXPECT_TRUE(Encode(prompt, 1).ok());
}

TEST(PromptTest, StructureDigestNamesGroupsPositionsAndRuleInUse) {
  auto digest = [](const Prompt& prompt) { return StructureDigest(Encode(prompt)->structure); };
  const Prompt prompt = TwoQuestions();
  Prompt aligned = prompt;
  aligned.positions = PositionPolicy::kAligned;
  Prompt shared = prompt;
  shared.rule = RulePreset::kShared;
  Prompt same_rule = prompt;  // ANCHORED, spelt out for the groups in use.
  same_rule.rule = RuleRows{{0, 1, 2}, {1}, {1, 2}, {}};
  EXPECT_EQ(digest(prompt).size(), 64u);
  EXPECT_EQ(digest(prompt), digest(same_rule));
  EXPECT_NE(digest(prompt), digest(aligned));
  EXPECT_NE(digest(prompt), digest(shared));
}

TEST(PromptTest, RefusesSpecialTokensThatTheModelDoesNotEmbed) {
  PromptLimits limits = kLimits;
  limits.vocabulary_size = kBos;
  Prompt prompt = {.segments = {Text(SegmentType::kContext, "a^")}, .add_special_tokens = false};
  EXPECT_TRUE(EncodePrompt(prompt, 0, ByteTokenizer(), limits).ok());
  prompt.segments[0].parse_special = true;
  const absl::Status status = EncodePrompt(prompt, 0, ByteTokenizer(), limits).status();
  EXPECT_EQ(GetFieldErrorDetail(status)->reason, "TOKEN_NOT_EMBEDDED") << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("holds token 256, \""), HasSubstr("the model embeds only 0..255")));
}

struct RefusalCase {
  const char* name;
  Prompt prompt;
  const char* field;
  const char* reason;
  const char* message;
  int32_t generated_group = 0;
};

Segment WithIndex(Segment segment, int32_t index) {
  segment.paraphrase_index = index;
  return segment;
}

Segment WithGroup(Segment segment, int32_t group) {
  segment.group = group;
  return segment;
}

std::vector<RefusalCase> SegmentRefusalCases() {
  const Segment text = Text(SegmentType::kContext, "c");
  const Segment empty = Text(SegmentType::kContext, "");
  return {
      {"NoSegments", {}, "segments", "NO_SEGMENTS", "at least one"},
      {"TooManySegments",
       {.segments = std::vector<Segment>(7, text)},
       "segments",
       "TOO_MANY_SEGMENTS",
       "7 given; at most 6"},
      {"EmptyText", {.segments = {empty, Question("", 0)}}, "segments", "EMPTY_PROMPT", "token"},
      {"EmptyIds", {.segments = {Ids({})}}, "segments", "EMPTY_PROMPT", "token"},
      {"IndexOnContext",
       {.segments = {text, WithIndex(text, 1)}},
       "segments[1].paraphrase_index",
       "PARAPHRASE_INDEX_NOT_ALLOWED",
       "only a question"},
      {"IndexMissing",
       {.segments = {Question("q", std::nullopt)}},
       "segments[0].paraphrase_index",
       "PARAPHRASE_INDEX_MISSING",
       "0..62"},
      {"IndexNegative",
       {.segments = {Question("q", -1)}},
       "segments[0].paraphrase_index",
       "PARAPHRASE_INDEX_OUT_OF_RANGE",
       "-1 is not in 0..62"},
      {"IndexTooLarge",
       {.segments = {Question("q", 63)}},
       "segments[0].paraphrase_index",
       "PARAPHRASE_INDEX_OUT_OF_RANGE",
       "63 is not in 0..62"},
  };
}

std::vector<RefusalCase> GroupAndLimitRefusalCases() {
  const Segment text = Text(SegmentType::kContext, "c");
  return {
      {"GroupUnderPreset",
       {.segments = {WithGroup(text, 1)}},
       "segments[0].group",
       "GROUP_WITHOUT_TABLE",
       "needs a table"},
      {"GroupOutOfRange",
       {.segments = {WithGroup(text, 64)}, .rule = RuleRows{{0}}},
       "segments[0].group",
       "GROUP_OUT_OF_RANGE",
       "64 is not in 0..63"},
      {"TokenIdOutOfRange",
       {.segments = {Ids({1, 300})}},
       "segments[0].token_ids[1]",
       "TOKEN_ID_OUT_OF_RANGE",
       "300 is not in 0..299"},
      {"TokenIdNegative",
       {.segments = {Ids({-1})}},
       "segments[0].token_ids[0]",
       "TOKEN_ID_OUT_OF_RANGE",
       "-1 is not in"},
      {"MixedInJoint",
       {.segments = {text, Ids({1})}},
       "segments[1].token_ids",
       "MIXED_TEXT_AND_IDS",
       "per_segment"},
      {"TooManyBytes",
       {.segments = {Text(SegmentType::kContext, std::string(51, 'x'))}},
       "segments",
       "PROMPT_TOO_LARGE",
       "51 bytes of text; at most 50"},
      {"TooManyTokens",
       {.segments = {Text(SegmentType::kContext, std::string(40, 'x'))}},
       "segments",
       "PROMPT_TOO_LONG",
       "41 tokens; the model's context length is 40"},
      {"EmptyTable",
       {.segments = {text}, .rule = RuleRows{}},
       "rule",
       "TABLE_SIZE_OUT_OF_RANGE",
       "0 rows"},
      {"LargeTable",
       {.segments = {text}, .rule = RuleRows(65, {0})},
       "rule",
       "TABLE_SIZE_OUT_OF_RANGE",
       "65 rows; 1..64"},
      {"TableGroupOutOfRange",
       {.segments = {text}, .rule = RuleRows{{0}, {0, -1}}},
       "rule[1][1]",
       "GROUP_OUT_OF_RANGE",
       "-1 is not in 0..63"},
      {"TableTooSmall",
       {.segments = {Question("q", 1)}, .rule = RuleRows{{0}, {1}}},
       "rule",
       "TABLE_TOO_SMALL",
       "segments[0] uses group 2"},
      {"NotSelfVisible",
       {.segments = {Question("q", 0)}, .rule = RuleRows{{0}, {0}}},
       "rule[1]",
       "GROUP_NOT_SELF_VISIBLE",
       "does not see itself"},
      {"GeneratedGroupOutOfRange",
       {.segments = {text}},
       "generated_group",
       "GROUP_OUT_OF_RANGE",
       "64 is not in 0..63",
       64},
      {"GeneratedGroupWithoutRow",
       {.segments = {text}, .rule = RuleRows{{0}}},
       "rule",
       "TABLE_TOO_SMALL",
       "generated_group uses group 3",
       3},
  };
}

class PromptRefusalTest : public testing::TestWithParam<RefusalCase> {};

TEST_P(PromptRefusalTest, NamesFieldReasonAndNumbers) {
  const RefusalCase& c = GetParam();
  const absl::Status status = Encode(c.prompt, c.generated_group).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::optional<FieldErrorDetail> detail = GetFieldErrorDetail(status);
  ASSERT_TRUE(detail.has_value()) << status;
  EXPECT_EQ(detail->field, c.field);
  EXPECT_EQ(detail->reason, c.reason);
  EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  EXPECT_EQ(status.message().find(c.field), 0u);
}

constexpr auto kNameOfCase = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Segments, PromptRefusalTest, testing::ValuesIn(SegmentRefusalCases()),
                         kNameOfCase);
INSTANTIATE_TEST_SUITE_P(GroupsAndLimits, PromptRefusalTest,
                         testing::ValuesIn(GroupAndLimitRefusalCases()), kNameOfCase);

}  // namespace
}  // namespace structattn::engine
