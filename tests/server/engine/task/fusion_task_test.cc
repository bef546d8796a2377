// Fused answers, step by step: in any mix, memory and chunking each is what the definition says, to
// the bit; members wait for each other through preemption; weights from confidence; ends and
// errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/server/engine/fakes.h"
#include "tests/server/engine/loop_test.h"

namespace structattn::engine {
namespace {

using fake::Expected;
using fake::Recorded;
using fake::RecordingSink;

class FusionTaskTest : public LoopTest {};

// Branches of random groups: behind cues, or behind the prompt's last token of a group.
std::vector<Branch> RandomBranches(const Structure& structure, std::mt19937* random, int most) {
  std::vector<Branch> branches;
  for (int count = 1 + static_cast<int>((*random)() % most); count > 0; --count) {
    Branch branch;
    branch.predicted_from = static_cast<int32_t>((*random)() % structure.size());
    branch.group = structure.groups()[branch.predicted_from];
    for (int i = branch.predicted_from; i < structure.size(); ++i) {
      if (structure.groups()[i] == branch.group) branch.predicted_from = i;
    }
    if ((*random)() % 3 == 0) {
      branch.cue.resize(1 + (*random)() % 20);
      for (int32_t& id : branch.cue) id = static_cast<int32_t>((*random)() % fake::kNanId);
    }
    branches.push_back(std::move(branch));
  }
  return branches;
}

GenerateRequest RandomFusion(std::mt19937* random, int max_tokens) {
  GenerateRequest request = fake::RandomRequest(random, 1, max_tokens);
  request.prompt = fake::FamiliarPrompt(random);
  request.branches = RandomBranches(request.prompt.structure, random, 6);
  const size_t members = request.branches.size();
  request.fusion = {
      .method = (*random)() % 2 == 0 ? FusionMethod::kAverage : FusionMethod::kMaximum,
      .weights = std::vector<double>(members, 1.0 / static_cast<double>(members))};
  if ((*random)() % 2 == 0) request.fusion->weights[0] *= 3.0;
  if ((*random)() % 4 == 0) {
    request.fusion->weights.clear();
    request.fusion->confidence_samples = 1 + static_cast<int32_t>((*random)() % 4);
    request.fusion->confidence_temperature = 0.1f;
  }
  return request;
}

// The members' worth by the definition.
std::vector<FusionMember> ExpectedMembers(const GenerateRequest& request) {
  std::vector<FusionMember> members;
  int32_t agreeing = 0;
  for (size_t i = 0; i < request.branches.size(); ++i) {
    FusionMember member{.group = request.branches[i].group};
    const auto branch = static_cast<int32_t>(i);
    if (!request.fusion->weights.empty()) {
      member.weight = request.fusion->weights[i];
    } else {
      GenerateRequest alone = request;
      alone.sampling.temperature = 0.0f;
      member.greedy_text = fake::ExpectedResult(alone, kContext, branch).text;
      alone.sampling.temperature = request.fusion->confidence_temperature;
      for (int32_t sample = 1; sample <= request.fusion->confidence_samples; ++sample) {
        const Expected expected = fake::ExpectedResult(alone, kContext, branch, sample);
        member.agreeing_samples += expected.text == member.greedy_text;
      }
      agreeing += member.agreeing_samples;
    }
    members.push_back(member);
  }
  if (!request.fusion->weights.empty()) return members;
  for (FusionMember& member : members) {
    member.weight = agreeing == 0 ? 1.0 / static_cast<double>(members.size())
                                  : static_cast<double>(member.agreeing_samples) / agreeing;
  }
  return members;
}

void ExpectFused(const GenerateRequest& request, const RecordingSink& sink) {
  ASSERT_TRUE(sink.error.ok()) << sink.error.message();
  ASSERT_TRUE(sink.finish.has_value());
  EXPECT_EQ(sink.events_after_end, 0);
  ASSERT_EQ(sink.continuations.size(), 1u);
  const std::vector<FusionMember> members = ExpectedMembers(request);
  std::vector<double> weights;
  for (const FusionMember& member : members) weights.push_back(member.weight);
  const Expected expected = fake::ExpectedFusion(request, kContext, weights);
  const Recorded& recorded = sink.continuations[0];
  EXPECT_EQ(recorded.token_ids, expected.token_ids);
  EXPECT_EQ(recorded.logprobs, expected.logprobs);  // The same bits.
  EXPECT_EQ(recorded.member_logprobs, expected.member_logprobs);
  EXPECT_EQ(recorded.text, expected.text);
  EXPECT_EQ(recorded.finish, expected.reason);
  EXPECT_EQ(sink.finish->reason, expected.reason);
  ASSERT_EQ(sink.finish->members.size(), members.size());
  for (size_t i = 0; i < members.size(); ++i) {
    EXPECT_EQ(sink.finish->members[i].group, members[i].group);
    EXPECT_EQ(sink.finish->members[i].weight, members[i].weight);
    EXPECT_EQ(sink.finish->members[i].greedy_text, members[i].greedy_text);
    EXPECT_EQ(sink.finish->members[i].agreeing_samples, members[i].agreeing_samples);
  }
}

TEST_F(FusionTaskTest, AnswersWhatTheDefinitionSaysInAnyMix) {
  int paused = 0;
  for (uint32_t seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    model_.decoder->tiling_value = {.tile_tokens = 8, .split_kv_branches = seed % 2 == 0 ? 0 : 4};
    MakeLoop({.max_step_tokens = static_cast<int32_t>(4 + random() % 60),
              .max_running_sequences = static_cast<int32_t>(1 + random() % 10)},
             /*blocks=*/24 + static_cast<int32_t>(random() % 8));
    std::vector<std::pair<GenerateRequest, std::shared_ptr<RecordingSink>>> fused;
    std::vector<std::pair<GenerateRequest, std::shared_ptr<RecordingSink>>> plain;
    for (int i = 0; i < 8; ++i) {
      GenerateRequest request = RandomFusion(&random, 60);
      request.cache = {.bypass = random() % 4 == 0, .salt = random() % 4 == 0 ? "other" : ""};
      if (random() % 4 == 0) {
        request.fusion.reset();
        plain.emplace_back(request, Add(request));
      } else {
        fused.emplace_back(request, Add(request));
      }
      for (int steps = static_cast<int>(random() % 8); steps > 0; --steps) Step();
      if (random() % 10 == 0) loop_->Cancel(next_ticket_ - 1 - random() % 3);
    }
    while (!loop_->idle()) {
      paused += loop_->counts().paused > 0;
      Step();
    }
    RunUntilIdle();
    for (const auto& [request, sink] : fused) {
      if (sink->finish->reason == FinishReason::kCancelled) continue;
      ASSERT_NO_FATAL_FAILURE(ExpectFused(request, *sink));
    }
    for (const auto& [request, sink] : plain) {
      if (sink->finish->reason == FinishReason::kCancelled) continue;
      for (size_t i = 0; i < sink->continuations.size(); ++i) {
        EXPECT_EQ(sink->continuations[i].logprobs,
                  fake::ExpectedResult(request, kContext, static_cast<int32_t>(i)).logprobs);
      }
    }
  }
  EXPECT_GT(preemptions_, 50);
  EXPECT_GT(paused, 500);
}

TEST_F(FusionTaskTest, OfOneMemberIsThePlainAnswer) {
  MakeLoop({.max_step_tokens = 100, .max_running_sequences = 8});
  for (int round = 0; round < 30; ++round) {
    GenerateRequest request = fake::RandomRequest(&random_, 60, 20);
    request.generated_group = request.prompt.structure.groups().back();
    const auto plain = Add(request);
    request.branches = {{.group = request.generated_group,
                         .cue = {},
                         .predicted_from = request.prompt.structure.size() - 1}};
    request.fusion = {.method = round % 2 == 0 ? FusionMethod::kAverage : FusionMethod::kMaximum,
                      .weights = {1.0}};
    const auto fused = Add(request);
    RunUntilIdle();
    EXPECT_EQ(fused->token_ids, plain->token_ids);
    EXPECT_EQ(fused->logprobs, plain->logprobs);
    EXPECT_EQ(fused->text, plain->text);
    EXPECT_EQ(fused->finish->reason, plain->finish->reason);
  }
}

TEST_F(FusionTaskTest, MembersRunTogetherAndThePromptOnce) {
  MakeLoop({.max_step_tokens = 512, .max_running_sequences = 64});
  GenerateRequest request = Plain(100, 8);
  for (int member = 0; member < 63; ++member) {
    request.branches.push_back({.group = member, .cue = {member}});
  }
  request.fusion = {.weights = std::vector<double>(63, 1.0 / 63)};
  const auto sink = Add(request);
  const int64_t steps = model_.decoder->steps;
  EXPECT_EQ(TokensComputed(), 100 + 63 * 8);  // A cue of one token each, and all but the last one.
  EXPECT_EQ(model_.decoder->steps - steps, 1 + 8);
  EXPECT_EQ(sink->finish->generated_tokens, 8);
  ExpectFused(request, *sink);
}

// Memory for little more than one member at a time: they take turns.
TEST_F(FusionTaskTest, MembersThatDoNotFitTogetherStillAnswer) {
  for (const int32_t most_running : {1, 3, 64}) {
    MakeLoop({.max_step_tokens = 64, .max_running_sequences = most_running}, /*blocks=*/8);
    GenerateRequest request = Plain(40, 12);
    for (int member = 0; member < 6; ++member) {
      std::vector<int32_t> cue(40);
      for (int32_t& id : cue) id = static_cast<int32_t>(random_() % fake::kNanId);
      request.branches.push_back({.group = 0, .cue = cue});
    }
    request.fusion = {.method = FusionMethod::kMaximum, .weights = std::vector<double>(6, 1.0 / 6)};
    const auto sink = Add(request);
    const auto other = Add(Plain(30, 60));
    RunUntilIdle();
    ExpectFused(request, *sink);
    EXPECT_TRUE(other->finish.has_value());
  }
}

TEST_F(FusionTaskTest, ConfidenceRunsSamplesBesideTheMembers) {
  MakeLoop({.max_step_tokens = 512, .max_running_sequences = 64});
  GenerateRequest request = Plain(60, 3);
  request.sampling.temperature = 0.0f;
  request.branches = {
      {.group = 1, .cue = {5, 6}}, {.group = 2, .cue = {7}}, {.group = 3, .cue = {8}}};
  request.fusion = {.confidence_samples = 16, .confidence_temperature = 0.1f};
  const auto sink = Add(request);
  RunUntilIdle();
  ExpectFused(request, *sink);
  EXPECT_EQ(sink->finish->generated_tokens, 3 + 3 * 17 * 3);
  int32_t agreeing = 0;
  for (const FusionMember& member : sink->finish->members) agreeing += member.agreeing_samples;
  EXPECT_GT(agreeing, 0);
  EXPECT_LT(agreeing, 48);
}

TEST_F(FusionTaskTest, WhereNoSampleAgreesAllWeighTheSame) {
  MakeLoop({.max_step_tokens = 512, .max_running_sequences = 64});
  GenerateRequest request = Plain(60, 12);
  request.sampling.top_k = 0;
  request.sampling.top_p = 1.0f;
  request.sampling.min_p = 0.0f;
  request.branches = {{.group = 1, .cue = {5}}, {.group = 2, .cue = {7}}};
  request.fusion = {.confidence_samples = 4, .confidence_temperature = 50.0f};
  const auto sink = Add(request);
  RunUntilIdle();
  ExpectFused(request, *sink);
  for (const FusionMember& member : sink->finish->members) {
    EXPECT_EQ(member.agreeing_samples, 0);
    EXPECT_EQ(member.weight, 0.5);
  }
}

TEST_F(FusionTaskTest, EndsOnceWhenCancelledOrBrokenOrWithoutRoom) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 2});
  GenerateRequest request = Plain(30, 500);
  request.branches = {
      {.group = 1, .cue = {5, 6}}, {.group = 2, .cue = {7}}, {.group = 3, .cue = {8}}};
  request.fusion = {.weights = {0.5, 0.25, 0.25}};
  const auto cancelled = Add(request);
  for (int i = 0; i < 7; ++i) Step();
  loop_->Cancel(1);
  EXPECT_TRUE(loop_->idle());
  EXPECT_EQ(loop_->counts().available_blocks, kv_blocks_);
  EXPECT_EQ(cancelled->finish->reason, FinishReason::kCancelled);
  EXPECT_FALSE(cancelled->token_ids.empty());

  GenerateRequest broken = request;
  broken.branches[1].cue = {fake::kNanId};
  const auto failed = Add(broken);
  RunUntilIdle();
  EXPECT_EQ(failed->error.code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(failed->finish.has_value());
  EXPECT_EQ(failed->events_after_end, 0);

  described_.context_length = 32;
  const auto full = Add(request);
  EXPECT_EQ(full->finish->reason, FinishReason::kLength);
  EXPECT_EQ(full->finish->generated_tokens, 0);
  request.branches[0].cue = {5};
  const auto one = Add(request);
  RunUntilIdle();
  EXPECT_EQ(one->finish->reason, FinishReason::kLength);
  EXPECT_EQ(one->finish->generated_tokens, 1);
}

}  // namespace
}  // namespace structattn::engine
