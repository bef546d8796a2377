// Every check of a score, in codec and serving: one row per bad input, with field and reason; and
// what an answer knows beforehand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/server/rpc/in_process_server.h"
#include "tests/server/rpc/v1/prepared.h"

namespace structattn::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// "ab" of group 1, "c" of group 0.
v1::ScoreRequest GoodScore() {
  v1::ScoreRequest request;
  v1::Segment* question = request.mutable_prompt()->add_segments();
  question->set_type(v1::SEGMENT_TYPE_QUESTION);
  question->set_paraphrase_index(0);
  question->set_text("ab");
  v1::Segment* cue = request.mutable_prompt()->add_segments();
  cue->set_type(v1::SEGMENT_TYPE_ANSWER_CUE);
  cue->set_text("c ");
  request.add_continuations()->set_text("yes");
  request.add_continuations()->set_text("n");
  request.set_prompt_logprobs_start(0);
  request.mutable_read_outs()->set_group_ends(true);
  request.mutable_read_outs()->add_candidate_token_ids(5);
  return request;
}

std::unique_ptr<engine::ServedModel> TestServed() {
  engine::fake::FakeModel fake(kTestContextLength);
  fake.model->tokenizer = std::make_unique<ByteTokenizer>();
  auto served = std::make_unique<engine::ServedModel>();
  served->name = "m";
  served->model = std::move(fake.model);
  return served;
}

struct BadScore {
  std::string name;
  std::function<void(v1::ScoreRequest*)> spoil;
  std::string field;
  std::string reason;
  std::string message_part;
};

class BadScoreTest : public ::testing::TestWithParam<BadScore> {};

TEST_P(BadScoreTest, NamesFieldReasonAndWhatIsAllowed) {
  const auto served = TestServed();
  v1::ScoreRequest request = GoodScore();
  GetParam().spoil(&request);
  const absl::Status status = PreparedScoreOf(request, *served).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status), GetParam().field) << status;
  EXPECT_EQ(ReasonOf(status), GetParam().reason);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message_part));
}

using Request = v1::ScoreRequest;

INSTANTIATE_TEST_SUITE_P(
    All, BadScoreTest,
    ::testing::Values(
        BadScore{"Nothing",
                 [](Request* r) {
                   r->clear_continuations();
                   r->clear_prompt_logprobs_start();
                   r->clear_read_outs();
                 },
                 "continuations", "NOTHING_TO_SCORE", "one of continuations"},
        BadScore{"ContentMissing", [](Request* r) { r->add_continuations(); }, "continuations[2]",
                 "CONTENT_MISSING", "one of text, token_ids"},
        BadScore{"EmptyIds",
                 [](Request* r) {
                   r->clear_continuations();
                   r->add_continuations()->mutable_token_ids();
                 },
                 "continuations[0]", "EMPTY_CONTINUATION", "at least one"},
        BadScore{"EmptyText",
                 [](Request* r) {
                   r->mutable_prompt()->mutable_segments(1)->set_text("c");
                   r->mutable_continuations(1)->set_text("");
                 },
                 "continuations[1]", "EMPTY_CONTINUATION", "at least one"},
        BadScore{"PastTheContext",
                 [](Request* r) {
                   r->mutable_continuations(1)->set_text(std::string(kTestContextLength, 'x'));
                 },
                 "continuations[1]", "CONTINUATION_TOO_LONG", "4097 tokens behind 3"},
        BadScore{"TextAndIds",
                 [](Request* r) { r->add_continuations()->mutable_token_ids()->add_ids(1); },
                 "continuations[2].token_ids", "MIXED_TEXT_AND_IDS", "all must be"},
        BadScore{"TextBehindIds",
                 [](Request* r) {
                   for (auto& segment : *r->mutable_prompt()->mutable_segments()) {
                     segment.mutable_token_ids()->add_ids(1);
                   }
                 },
                 "continuations[0].text", "MIXED_TEXT_AND_IDS", "prompt is given as token ids"},
        BadScore{"IdOutOfRange",
                 [](Request* r) {
                   r->clear_continuations();
                   r->add_continuations()->mutable_token_ids()->add_ids(97);
                 },
                 "continuations[0].token_ids[0]", "TOKEN_ID_OUT_OF_RANGE", "0..96"},
        BadScore{"TooMany",
                 [](Request* r) {
                   for (int i = 0; i < 255; ++i) r->add_continuations()->set_text("x");
                 },
                 "continuations", "TOO_MANY_ENTRIES", "257 entries; at most 256"},
        BadScore{"TooMuchText",
                 [](Request* r) {
                   r->mutable_continuations(0)->set_text(std::string((1 << 20) + 1, 'x'));
                 },
                 "continuations", "CONTINUATIONS_TOO_LARGE", "at most 1048576"},
        BadScore{"GroupOutOfRange", [](Request* r) { r->set_generated_group(-1); },
                 "generated_group", "GROUP_OUT_OF_RANGE", "0..63"},
        BadScore{"EchoPastThePrompt", [](Request* r) { r->set_prompt_logprobs_start(3); },
                 "prompt_logprobs_start", "VALUE_OUT_OF_RANGE", "3 is not in 0..2"},
        BadScore{"EchoNegative", [](Request* r) { r->set_prompt_logprobs_start(-1); },
                 "prompt_logprobs_start", "VALUE_OUT_OF_RANGE", "0..2"},
        BadScore{"EchoOfOneToken",
                 [](Request* r) { r->mutable_prompt()->mutable_segments(0)->set_text(""); },
                 "prompt_logprobs_start", "VALUE_OUT_OF_RANGE", "the first has no score"},
        BadScore{"ReadOutPastThePrompt",
                 [](Request* r) { r->mutable_read_outs()->add_token_indices(3); },
                 "read_outs.token_indices[0]", "VALUE_OUT_OF_RANGE", "0..2"},
        BadScore{"ReadOutOfNothing",
                 [](Request* r) { r->mutable_read_outs()->clear_candidate_token_ids(); },
                 "read_outs", "NOTHING_TO_READ", "candidate_token_ids, top_logprobs"},
        BadScore{"ReadOutNowhere",
                 [](Request* r) { r->mutable_read_outs()->set_group_ends(false); }, "read_outs",
                 "NOTHING_TO_READ", "token_indices, group_ends"},
        BadScore{"CandidateOutOfRange",
                 [](Request* r) { r->mutable_read_outs()->add_candidate_token_ids(97); },
                 "read_outs.candidate_token_ids[1]", "TOKEN_ID_OUT_OF_RANGE", "0..96"},
        BadScore{"TopLogprobs", [](Request* r) { r->mutable_read_outs()->set_top_logprobs(21); },
                 "read_outs.top_logprobs", "VALUE_OUT_OF_RANGE", "0..20"},
        BadScore{"Timeout", [](Request* r) { r->set_timeout_ms(-1); }, "timeout_ms",
                 "VALUE_OUT_OF_RANGE", "negative"},
        BadScore{"NoSegments", [](Request* r) { r->clear_prompt(); }, "segments", "NO_SEGMENTS",
                 "at least one"}),
    [](const auto& info) { return info.param.name; });

TEST(PrepareScore, SaysBeforehandWhatIsScored) {
  const auto served = TestServed();
  const auto prepared = PreparedScoreOf(GoodScore(), *served);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const serving::ScoreAnswer& answer = prepared->answer;
  ASSERT_EQ(answer.continuations.size(), 2u);
  EXPECT_EQ(answer.continuations[0].token_ids.size(), 4u);  // " yes": the space has moved.
  EXPECT_EQ(answer.continuations[1].token_ids.size(), 2u);
  EXPECT_EQ(answer.prompt_logprobs_start, 1);
  ASSERT_TRUE(answer.prompt.has_value());
  EXPECT_EQ(answer.prompt->token_ids.size(), 2u);
  ASSERT_EQ(answer.read_outs.size(), 2u);
  EXPECT_EQ(answer.read_outs[0].token_index, 1);
  EXPECT_EQ(answer.read_outs[0].group, 1);
  EXPECT_EQ(answer.read_outs[1].token_index, 2);
  EXPECT_EQ(answer.read_outs[1].group, 0);
  EXPECT_EQ(answer.provenance.structure_digest.size(), 64u);
  ASSERT_EQ(prepared->request.prompts.size(), 1u);
  EXPECT_THAT(prepared->request.prompts[0].read_outs, ElementsAre(1, 2));
  EXPECT_EQ(prepared->request.prompts[0].prompt_logprobs_begin, 1);
}

TEST(PrepareScore, AnEmptyPromptStandsForAnEndOfSequenceWhereThereIsNoBos) {
  const auto served = TestServed();
  v1::ScoreRequest request = GoodScore();
  request.clear_prompt_logprobs_start();
  for (auto& segment : *request.mutable_prompt()->mutable_segments()) segment.set_text("");
  served->model->config.eos_token_ids = {};
  EXPECT_EQ(ReasonOf(PreparedScoreOf(request, *served).status()), "EMPTY_PROMPT");
  served->model->config.eos_token_ids = {41, 42};
  const auto prepared = PreparedScoreOf(request, *served);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->request.prompts[0].prompt.token_ids, ElementsAre(41));
  EXPECT_EQ(prepared->answer.continuations[0].token_ids.size(), 3u);
  for (const auto& [bos, expected] : {std::pair{7, 7}, std::pair{42, 41}}) {
    served->model->config.bos_token_id = bos;  // 42 ends a text: no BOS.
    EXPECT_THAT(PreparedScoreOf(request, *served)->request.prompts[0].prompt.token_ids,
                ElementsAre(expected));
  }
}

TEST(PrepareScoreRolling, TheTextStandsBehindThePrefixToken) {
  const auto served = TestServed();
  v1::ScoreRollingRequest request;
  request.mutable_text()->set_text("ab");
  const auto before = [&] {
    return PreparedScoreOf(request, *served)->request.prompts[0].prompt.token_ids;
  };
  served->model->config.eos_token_ids = {41};
  EXPECT_THAT(before(), ElementsAre(41));
  request.set_prefix_token_id(7);
  EXPECT_THAT(before(), ElementsAre(7));
  // "b" is plain text unless special tokens are parsed: then a text that begins with the prefix
  // token has it already.
  const int32_t b = PreparedScoreOf(request, *served)->answer.continuations[0].token_ids[1];
  request.set_prefix_token_id(b);
  request.mutable_text()->set_text("ba");
  EXPECT_EQ(PreparedScoreOf(request, *served)->answer.continuations[0].token_ids.size(), 2u);
  request.mutable_text()->set_parse_special(true);
  EXPECT_EQ(PreparedScoreOf(request, *served)->answer.continuations[0].token_ids.size(), 1u);
  EXPECT_THAT(before(), ElementsAre(b));
}

TEST(PrepareScoreRolling, ChecksTextAndWindow) {
  const auto served = TestServed();
  v1::ScoreRollingRequest request;
  const auto field_of = [&] { return FieldOf(PreparedScoreOf(request, *served).status()); };
  EXPECT_EQ(field_of(), "text");
  request.mutable_text()->set_text("");
  EXPECT_EQ(field_of(), "text");
  request.mutable_text()->set_text("some text");
  request.set_window_tokens(15);
  EXPECT_EQ(field_of(), "window_tokens");
  request.set_window_tokens(kTestContextLength + 1);
  EXPECT_EQ(field_of(), "window_tokens");
  request.set_window_tokens(16);
  request.set_prefix_token_id(97);
  EXPECT_EQ(field_of(), "prefix_token_id");
  request.set_prefix_token_id(0);
  EXPECT_TRUE(PreparedScoreOf(request, *served).ok());
  request.mutable_text()->mutable_token_ids()->add_ids(97);
  EXPECT_EQ(field_of(), "text.token_ids[0]");
}

}  // namespace
}  // namespace structattn::rpc
