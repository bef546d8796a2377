// Prompts as JSON: everything that the contract names arrives in proto; everything else is refused
// with its path.
#include "client/prompt_json.h"

#include <gtest/gtest.h>

#include <string>

namespace structattn::client {
namespace {

PromptInput Parse(const std::string& text) { return ParsePrompt(text, {}); }

// The field and message of the refusal; "accepted" when there is none.
std::pair<std::string, std::string> Refusal(const std::string& text) {
  try {
    Parse(text);
  } catch (const PromptError& error) {
    return {error.field(), error.what()};
  }
  return {"accepted", ""};
}

TEST(PromptJsonTest, ReadsEveryFieldOfTheContract) {
  const PromptInput input = Parse(R"({
    "id": "x1", "answers": ["Paris"], "add_special_tokens": false,
    "continuations": [" Paris", [3, 4], {"text": "Rome</s>", "parse_special": true},
                      {"token_ids": [5]}],
    "rule": {"visible": [[0, 1], [1], [0, 2]]}, "positions": "aligned",
    "tokenization": "per_segment",
    "segments": [
      {"type": "instruction", "text": "Answer.\n"},
      {"type": "few_shot", "token_ids": [1, 2]},
      {"type": "context", "text": "c", "parse_special": true},
      {"type": "question", "text": "q", "paraphrase_index": 0},
      {"type": "question", "text": "r", "paraphrase_idx": 1},
      {"type": "separator", "text": "s", "group": 2},
      {"type": "answer_cue", "text": ""}]})");
  EXPECT_EQ(input.id, "x1");
  EXPECT_EQ(input.answers, Json({"Paris"}));
  const v1::Prompt& prompt = input.prompt;
  EXPECT_EQ(prompt.positions(), v1::POSITION_POLICY_ALIGNED);
  EXPECT_EQ(prompt.tokenization(), v1::TOKENIZATION_PER_SEGMENT);
  EXPECT_TRUE(prompt.has_add_special_tokens() && !prompt.add_special_tokens());
  ASSERT_EQ(input.continuations.size(), 4u);
  EXPECT_EQ(input.continuations[0].text(), " Paris");
  EXPECT_EQ(input.continuations[1].token_ids().ids(1), 4);
  EXPECT_EQ(input.continuations[2].text(), "Rome</s>");
  EXPECT_FALSE(input.continuations[0].parse_special());
  EXPECT_TRUE(input.continuations[2].parse_special());
  EXPECT_EQ(input.continuations[3].token_ids().ids(0), 5);
  ASSERT_EQ(prompt.rule().table().visible_size(), 3);
  EXPECT_EQ(prompt.rule().table().visible(2).groups(1), 2);
  ASSERT_EQ(prompt.segments_size(), 7);
  for (int i = 0; i < 7; ++i)
    EXPECT_EQ(static_cast<int>(prompt.segments(i).type()), i < 3 ? i + 1 : i < 5 ? 4 : i) << i;
  EXPECT_EQ(prompt.segments(1).token_ids().ids(1), 2);
  EXPECT_TRUE(prompt.segments(2).parse_special());
  EXPECT_EQ(prompt.segments(3).paraphrase_index(), 0);
  EXPECT_EQ(prompt.segments(4).paraphrase_index(), 1);
  EXPECT_EQ(prompt.segments(5).group(), 2);
  EXPECT_TRUE(prompt.segments(6).has_text());
}

TEST(PromptJsonTest, APromptsOwnChoiceWinsOverTheDefaults) {
  v1::Prompt defaults;
  defaults.mutable_rule()->set_preset(v1::RULE_PRESET_SHARED);
  defaults.set_positions(v1::POSITION_POLICY_ALIGNED);
  const std::string segments = R"("segments": [{"type": "question", "text": "q"}])";
  const v1::Prompt kept = ParsePrompt("{" + segments + "}", defaults).prompt;
  EXPECT_EQ(kept.rule().preset(), v1::RULE_PRESET_SHARED);
  EXPECT_EQ(kept.positions(), v1::POSITION_POLICY_ALIGNED);
  const v1::Prompt own =
      ParsePrompt(R"({"rule": "causal", "positions": "sequential", )" + segments + "}", defaults)
          .prompt;
  EXPECT_EQ(own.rule().preset(), v1::RULE_PRESET_CAUSAL);
  EXPECT_EQ(own.positions(), v1::POSITION_POLICY_SEQUENTIAL);
}

TEST(PromptJsonTest, LeavesMeaningToTheServer) {
  const PromptInput input =
      Parse(R"({"segments": [{"type": "context", "text": "", "paraphrase_index": -7}]})");
  EXPECT_EQ(input.prompt.segments(0).paraphrase_index(), -7);
}

struct RefusalCase {
  const char* json;
  const char* field;
  const char* message;  // Must be part of the refusal's text.
};

class PromptJsonRefusalTest : public testing::TestWithParam<RefusalCase> {};

TEST_P(PromptJsonRefusalTest, NamesFieldAndReason) {
  const auto [field, message] = Refusal(GetParam().json);
  EXPECT_EQ(field, GetParam().field);
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, PromptJsonRefusalTest,
    testing::Values(
        RefusalCase{"", "", "not JSON"}, RefusalCase{"[]", "", "object"},
        RefusalCase{"{\"segments\": [", "", "not JSON"}, RefusalCase{"{}", "segments", "missing"},
        RefusalCase{R"({"segments": [], "answers": [1e999]})", "", "out of range"},
        RefusalCase{R"({"segments": {}})", "segments", "array"},
        RefusalCase{R"({"segments": [1]})", "segments[0]", "object"},
        RefusalCase{R"({"segments": [], "extra": 1})", "extra", "unknown field"},
        RefusalCase{R"({"segments": [{"text": "a"}]})", "segments[0].type", "missing"},
        RefusalCase{R"({"segments": [{"type": "poem", "text": "a"}]})", "segments[0].type",
                    "allowed are instruction, few_shot"},
        RefusalCase{R"({"segments": [{"type": "context"}]})", "segments[0]", "text, token_ids"},
        RefusalCase{R"({"segments": [{"type": "context", "text": 5}]})", "segments[0].text",
                    "string"},
        RefusalCase{R"({"segments": [{"type": "context", "text": "", "token_ids": []}]})",
                    "segments[0].token_ids", "exclude"},
        RefusalCase{R"({"segments": [{"type": "context", "token_ids": [1, 4294967296]}]})",
                    "segments[0].token_ids[1]", "32-bit"},
        RefusalCase{R"({"segments": [{"type": "context", "text": "", "colour": 1}]})",
                    "segments[0].colour", "unknown field"},
        RefusalCase{R"({"segments": [{"type": "question", "text": "", "paraphrase_index": 1.5}]})",
                    "segments[0].paraphrase_index", "integer"},
        RefusalCase{R"({"segments": [{"type": "question", "text": "", "paraphrase_index": 1,
                       "paraphrase_idx": 1}]})",
                    "segments[0].paraphrase_idx", "twice"},
        RefusalCase{R"({"segments": [], "rule": "free"})", "rule", "anchored, shared"},
        RefusalCase{R"({"segments": [], "rule": {"seen": []}})", "rule", "visible"},
        RefusalCase{R"({"segments": [], "rule": {"visible": [[0], 1]}})", "rule.visible[1]",
                    "array"},
        RefusalCase{R"({"segments": [], "positions": "random"})", "positions", "aligned"},
        RefusalCase{R"({"segments": [], "continuations": [7]})", "continuations[0]", "an object"},
        RefusalCase{R"({"segments": [], "continuations": [{"parse_special": true}]})",
                    "continuations[0]", "text, token_ids"},
        RefusalCase{R"({"segments": [], "continuations": [{"text": "a", "token_ids": []}]})",
                    "continuations[0].token_ids", "exclude"},
        RefusalCase{R"({"segments": [], "continuations": [{"text": "a", "group": 1}]})",
                    "continuations[0].group", "unknown field"},
        RefusalCase{R"({"segments": [], "add_special_tokens": 1})", "add_special_tokens",
                    "true or false"},
        RefusalCase{R"({"segments": [], "tokenization": true})", "tokenization", "string"},
        RefusalCase{R"({"id": [], "segments": []})", "id", "string"}));

TEST(PromptJsonTest, DeepNestingIsRefusedNotRecursedOn) {
  const std::string deep = R"({"segments": )" + std::string(100000, '[');
  EXPECT_NE(Refusal(deep).second.find("deep"), std::string::npos);
}

}  // namespace
}  // namespace structattn::client
