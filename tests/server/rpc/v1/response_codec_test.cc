// Merging of events and the names of finish reasons; the rest is seen over the wire by
// inference_service_test.
#include "server/rpc/v1/response_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace structattn::rpc {
namespace {

using ::testing::ElementsAre;

TEST(AppendToken, MergesEventsInOrder) {
  v1::Chunk chunk;
  AppendToken({.text = "a", .token_ids = {1}, .logprobs = {-0.5f}, .top_logprobs = {{{1, -0.5f}}}},
              &chunk);
  AppendToken({.text = "", .token_ids = {2}, .logprobs = {-1.0f}, .top_logprobs = {{{7, -0.1f}}}},
              &chunk);
  AppendToken({.text = "bc", .token_ids = {}, .logprobs = {}, .top_logprobs = {}}, &chunk);
  EXPECT_EQ(chunk.text(), "abc");
  EXPECT_THAT(chunk.token_ids(), ElementsAre(1, 2));
  EXPECT_THAT(chunk.logprobs(), ElementsAre(-0.5f, -1.0f));
  ASSERT_EQ(chunk.top_logprobs_size(), 2);
  EXPECT_EQ(chunk.top_logprobs(1).entries(0).token_id(), 7);
}

TEST(EncodeFinished, EveryReasonHasItsOwnCodeAndName) {
  std::set<int> codes;
  std::set<std::string> names;
  for (engine::FinishReason reason :
       {engine::FinishReason::kStop, engine::FinishReason::kStopToken,
        engine::FinishReason::kStopString, engine::FinishReason::kLength,
        engine::FinishReason::kCancelled, engine::FinishReason::kDeadline}) {
    const v1::Finished finished = EncodeFinished({.reason = reason,
                                                  .prompt_tokens = 3,
                                                  .cached_tokens = 2,
                                                  .cached_per_segment = {0, 2},
                                                  .generated_tokens = 1,
                                                  .queue = absl::Microseconds(1500),
                                                  .prefill = absl::Milliseconds(2),
                                                  .decode = absl::Milliseconds(3)});
    codes.insert(finished.reason());
    names.emplace(serving::FinishReasonName(reason));
    EXPECT_EQ(finished.usage().prompt_tokens(), 3);
    EXPECT_EQ(finished.usage().cached_tokens(), 2);
    EXPECT_EQ(finished.usage().generated_tokens(), 1);
    EXPECT_THAT(finished.usage().cached_tokens_per_segment(), ElementsAre(0, 2));
    EXPECT_EQ(finished.timings().queue_ms(), 1.5);
    EXPECT_EQ(finished.timings().prefill_ms(), 2.0);
    EXPECT_EQ(finished.timings().decode_ms(), 3.0);
  }
  EXPECT_EQ(codes.size(), 6u);
  EXPECT_FALSE(codes.contains(v1::FINISH_REASON_UNSPECIFIED));
  EXPECT_EQ(names, (std::set<std::string>{"stop", "stop_token", "stop_string", "length",
                                          "cancelled", "deadline"}));
}

}  // namespace
}  // namespace structattn::rpc
