// Per-paraphrase prompts packed into one: each token sees and stands where it does in its prompt
// alone; and every refusal.
#include "server/engine/prompt/per_paraphrase_prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "server/engine/field_error.h"
#include "tests/server/engine/fakes.h"

namespace structattn::engine {
namespace {

using testing::ElementsAre;

// One token a byte, below the ids that break the fake decoder.
class ByteTokenizer : public fake::FakeTokenizer {
 public:
  absl::StatusOr<std::vector<Token>> Encode(std::span<const TextSegment> segments,
                                            const std::stop_token&) const override {
    std::vector<Token> tokens;
    for (size_t s = 0; s < segments.size(); ++s) {
      for (const char c : segments[s].text) {
        tokens.push_back({static_cast<uint8_t>(c) % fake::kNanId, static_cast<int32_t>(s)});
      }
    }
    return tokens;
  }
};

const PromptLimits kLimits = {.vocabulary_size = fake::kVocabulary,
                              .context_length = 100,
                              .max_prompt_bytes = 1000,
                              .max_segments = 20};

Segment Text(SegmentType type, const std::string& text) { return {.type = type, .content = text}; }

Segment Question(const std::string& text, int32_t index) {
  return {.type = SegmentType::kQuestion, .content = text, .paraphrase_index = index};
}

Prompt ThreeQuestions() {
  return {.segments = {Text(SegmentType::kInstruction, "Answer."), Question("Q: who?", 4),
                       Text(SegmentType::kSeparator, "--"), Question("Q: which?", 0),
                       Question("Name it.", 62), Question(" Now!", 4),
                       Text(SegmentType::kAnswerCue, "A:")},
          .rule = RulePreset::kIsolated};
}

PerParaphrasePrompts Encode(const Prompt& prompt) {
  auto packed = EncodePerParaphrasePrompts(prompt, ByteTokenizer(), kLimits);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

// The member's tokens in order of index, as it sees them: must be its per-paraphrase prompt.
void ExpectOwn(const PerParaphrasePrompts& packed, int member, const std::string& text) {
  SCOPED_TRACE(text);
  const Branch& branch = packed.members[member];
  const Structure& structure = packed.prompt.structure;
  EXPECT_TRUE(branch.per_paraphrase_prompt);
  Structure alone(RuleTable::Preset(RulePreset::kCausal), PositionPolicy::kSequential);
  std::vector<int32_t> ids;
  for (int i = 0; i <= branch.predicted_from; ++i) {
    if (!MaySee(structure, branch.predicted_from, i)) continue;
    EXPECT_EQ(structure.positions()[i], static_cast<int32_t>(ids.size()));
    ids.push_back(packed.prompt.token_ids[i]);
    alone.Append(0);
    EXPECT_EQ(fake::ReferenceLogits(packed.prompt.token_ids, structure, i),
              fake::ReferenceLogits(ids, alone, alone.size() - 1));  // The same bits.
  }
  std::vector<int32_t> expected;
  for (const char c : text) expected.push_back(static_cast<uint8_t>(c) % fake::kNanId);
  EXPECT_EQ(ids, expected);
  // What follows goes on in the same places.
  Structure longer = structure;
  longer.Append(branch.group);
  EXPECT_EQ(longer.positions().back(), alone.size());
}

TEST(PerParaphrasePrompts, AreTheSegmentsWithoutTheOthersQuestions) {
  const PerParaphrasePrompts packed = Encode(ThreeQuestions());
  ASSERT_EQ(packed.members.size(), 3u);
  EXPECT_EQ(packed.members[0].group, 1);
  EXPECT_EQ(packed.members[1].group, 5);
  EXPECT_EQ(packed.members[2].group, 63);
  ExpectOwn(packed, 0, "Answer.--Q: which?A:");
  ExpectOwn(packed, 1, "Answer.Q: who?-- Now!A:");
  ExpectOwn(packed, 2, "Answer.--Name it.A:");
  // "Answer." once, and what each has for itself; segments are those of the whole prompt.
  EXPECT_EQ(packed.prompt.structure.size(), 7 + 13 + 16 + 12);
  EXPECT_EQ(packed.prompt.segment_count, 7);
  EXPECT_EQ(packed.prompt.segments.size(), packed.prompt.token_ids.size());
  EXPECT_THAT(
      std::vector<int32_t>(packed.prompt.segments.begin() + 7, packed.prompt.segments.begin() + 10),
      ElementsAre(2, 2, 3));
}

TEST(PerParaphrasePrompts, KeepATokenForEachThatTheOthersBeginWith) {
  Prompt prompt = ThreeQuestions();
  for (int i : {1, 3, 4, 5}) prompt.segments[i].content = std::string("same");
  prompt.segments[5].content = std::string();  // All three are the same but for the border.
  prompt.segments[2].content = std::string();
  const PerParaphrasePrompts packed = Encode(prompt);
  EXPECT_EQ(packed.prompt.structure.size(), 12 + 3);
  for (int member = 0; member < 3; ++member) ExpectOwn(packed, member, "Answer.sameA:");
}

TEST(PerParaphrasePrompts, OfOneParaphraseAreItsPrompt) {
  Prompt prompt = ThreeQuestions();
  for (Segment& segment : prompt.segments) {
    if (segment.type == SegmentType::kQuestion) segment.paraphrase_index = 2;
  }
  const PerParaphrasePrompts packed = Encode(prompt);
  ASSERT_EQ(packed.members.size(), 1u);
  ExpectOwn(packed, 0, "Answer.Q: who?--Q: which?Name it. Now!A:");
}

TEST(PerParaphrasePrompts, TakeExplicitGroupsAndTokenIds) {
  Prompt prompt = ThreeQuestions();
  prompt.rule = RuleRows{{0}, {1}, {2}, {3}};
  prompt.segments[1] = {.type = SegmentType::kQuestion, .content = std::string("a"), .group = 3};
  prompt.segments[3] = {.type = SegmentType::kQuestion, .content = std::string("b"), .group = 0};
  prompt.segments[4] = {
      .type = SegmentType::kQuestion, .content = std::vector<int32_t>{'C', 'D'}, .group = 2};
  prompt.segments[5] = Text(SegmentType::kContext, "e");
  prompt.segments[5].group = 2;  // No question: part of all.
  prompt.tokenization = Tokenization::kPerSegment;
  const PerParaphrasePrompts packed = Encode(prompt);
  ASSERT_EQ(packed.members.size(), 2u);
  EXPECT_EQ(packed.members[0].group, 2);
  EXPECT_EQ(packed.members[1].group, 3);
  ExpectOwn(packed, 0, "Answer.--bCDeA:");
  ExpectOwn(packed, 1, "Answer.a--beA:");
}

void ExpectRefused(const Prompt& prompt, const std::string& field, const std::string& reason) {
  absl::Status status = CheckPrompt(prompt, kLimits);
  if (status.ok()) status = EncodePerParaphrasePrompts(prompt, ByteTokenizer(), kLimits).status();
  ASSERT_FALSE(status.ok());
  const auto detail = GetFieldErrorDetail(status);
  ASSERT_TRUE(detail.has_value()) << status;
  EXPECT_EQ(detail->field, field) << status;
  EXPECT_EQ(detail->reason, reason) << status;
}

TEST(PerParaphrasePrompts, RefuseWithTheFieldOfTheWholePrompt) {
  Prompt prompt = ThreeQuestions();
  prompt.segments[4].paraphrase_index = 63;
  ExpectRefused(prompt, "segments[4].paraphrase_index", "PARAPHRASE_INDEX_OUT_OF_RANGE");
  prompt = ThreeQuestions();
  for (int i : {5, 4, 3, 1}) prompt.segments.erase(prompt.segments.begin() + i);
  ExpectRefused(prompt, "segments", "NO_PARAPHRASE");
  prompt = ThreeQuestions();
  prompt.rule = RuleRows{{64}};
  ExpectRefused(prompt, "rule[0][0]", "GROUP_OUT_OF_RANGE");
  prompt = ThreeQuestions();
  prompt.segments[0].content = std::string(400, 'x');  // Three times.
  ExpectRefused(prompt, "segments", "PROMPT_TOO_LARGE");
  prompt = ThreeQuestions();
  prompt.segments[0].content = std::string(95, 'x');
  ExpectRefused(prompt, "segments", "PROMPT_TOO_LONG");
}

// Together they are longer than the context; each alone is not.
TEST(PerParaphrasePrompts, CountAgainstTheContextOneByOne) {
  Prompt prompt = ThreeQuestions();
  prompt.segments[1].content = std::string(80, 'y');
  prompt.segments[3].content = std::string(80, 'z');
  const PerParaphrasePrompts packed = Encode(prompt);
  EXPECT_GT(packed.prompt.structure.size(), kLimits.context_length);
}

}  // namespace
}  // namespace structattn::engine
