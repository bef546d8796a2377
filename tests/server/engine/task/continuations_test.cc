// Requests with many continuations, step by step: branches, samples and scores are what the
// definition says under any mix, memory and chunking; a prompt is computed once; each continuation
// ends by itself; nothing is left behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/server/engine/fakes.h"
#include "tests/server/engine/loop_test.h"

namespace structattn::engine {
namespace {

using fake::Recorded;
using fake::RecordingScoreSink;
using fake::RecordingSink;

class ContinuationsTest : public LoopTest {};

std::vector<int32_t> RandomIds(std::mt19937* random, int most) {
  std::vector<int32_t> ids(1 + (*random)() % most);
  for (int32_t& id : ids) id = static_cast<int32_t>((*random)() % fake::kNanId);
  return ids;
}

// Random branches, of which those without a cue are of groups that the prompt has.
GenerateRequest WithRandomContinuations(GenerateRequest request, std::mt19937* random) {
  const Structure& structure = request.prompt.structure;
  request.samples = 1 + static_cast<int32_t>((*random)() % 4);
  request.best_of = request.samples;
  for (int count = static_cast<int>((*random)() % 5); count > 0; --count) {
    Branch branch;
    if ((*random)() % 2 == 0) {
      branch.group = static_cast<int32_t>((*random)() % 5);
      branch.cue = RandomIds(random, 20);
    } else {
      branch.predicted_from = static_cast<int32_t>((*random)() % structure.size());
      branch.group = structure.groups()[branch.predicted_from];
      for (int i = branch.predicted_from; i < structure.size(); ++i) {
        if (structure.groups()[i] == branch.group) branch.predicted_from = i;
      }
    }
    request.branches.push_back(branch);
  }
  return request;
}

void ExpectSame(const Recorded& recorded, const fake::Expected& expected) {
  EXPECT_EQ(recorded.token_ids, expected.token_ids);
  EXPECT_EQ(recorded.logprobs, expected.logprobs);  // The same bits.
  EXPECT_EQ(recorded.text, expected.text);
  EXPECT_EQ(recorded.finish, expected.reason);
}

void ExpectAnswered(const GenerateRequest& request, const RecordingSink& sink) {
  ASSERT_TRUE(sink.error.ok()) << sink.error.message();
  ASSERT_TRUE(sink.finish.has_value());
  EXPECT_EQ(sink.events_after_end, 0);
  const size_t branches = std::max<size_t>(request.branches.size(), 1);
  ASSERT_EQ(sink.continuations.size(), branches * request.samples);
  ASSERT_EQ(sink.finish->continuations.size(), sink.continuations.size());
  int32_t generated = 0;
  for (size_t i = 0; i < sink.continuations.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "continuation " << i);
    const Recorded& recorded = sink.continuations[i];
    ExpectSame(recorded,
               fake::ExpectedResult(request, kContext, static_cast<int32_t>(i) / request.samples,
                                    static_cast<int32_t>(i) % request.samples));
    const ContinuationEnd& end = sink.finish->continuations[i];
    EXPECT_EQ(end.index, static_cast<int32_t>(i));
    EXPECT_EQ(end.group, recorded.group);
    EXPECT_EQ(end.reason, recorded.finish);
    EXPECT_EQ(end.generated_tokens, static_cast<int32_t>(recorded.token_ids.size()));
    generated += end.generated_tokens;
  }
  EXPECT_EQ(sink.finish->generated_tokens, generated);
  EXPECT_EQ(sink.finish->reason, sink.continuations[0].finish);
}

ScoreRequest RandomScores(std::mt19937* random) {
  ScoreRequest request;
  for (int prompts = 1 + static_cast<int>((*random)() % 2); prompts > 0; --prompts) {
    ScoredPrompt scored{.prompt = fake::FamiliarPrompt(random),
                        .group = static_cast<int32_t>((*random)() % 3)};
    for (int count = static_cast<int>((*random)() % 6); count > 0; --count) {
      scored.continuations.push_back(RandomIds(random, (*random)() % 2 == 0 ? 1 : 30));
    }
    if (scored.prompt.structure.size() > 1 && (*random)() % 3 == 0) {
      scored.prompt_logprobs_begin =
          1 + static_cast<int32_t>((*random)() % (scored.prompt.structure.size() - 1));
    }
    if (scored.continuations.empty() || (*random)() % 3 == 0) {
      scored.read_outs = {static_cast<int32_t>((*random)() % scored.prompt.structure.size())};
    }
    request.prompts.push_back(std::move(scored));
  }
  request.candidates = RandomIds(random, 5);
  request.top_logprobs = static_cast<int32_t>((*random)() % 4);
  return request;
}

void ExpectSameScores(const TokenScores& scores, const TokenScores& expected) {
  EXPECT_EQ(scores.logprobs, expected.logprobs);
  EXPECT_EQ(scores.ranks, expected.ranks);
}

void ExpectScored(const ScoreRequest& request, const RecordingScoreSink& sink) {
  ASSERT_TRUE(sink.error.ok()) << sink.error.message();
  ASSERT_EQ(sink.answers, 1);
  ASSERT_EQ(sink.scores->prompts.size(), request.prompts.size());
  for (size_t p = 0; p < request.prompts.size(); ++p) {
    SCOPED_TRACE(testing::Message() << "prompt " << p);
    const ScoredPrompt& asked = request.prompts[p];
    const PromptScores& scores = sink.scores->prompts[p];
    const fake::ExpectedScores expected = fake::ExpectedScoresOf(asked);
    ASSERT_EQ(scores.continuations.size(), asked.continuations.size());
    for (size_t c = 0; c < asked.continuations.size(); ++c) {
      ExpectSameScores(scores.continuations[c], expected.continuations[c]);
    }
    ExpectSameScores(scores.prompt_logprobs, expected.prompt_logprobs);
    ASSERT_EQ(scores.read_outs.size(), asked.read_outs.size());
    for (size_t r = 0; r < asked.read_outs.size(); ++r) {
      const ReadOut& read_out = scores.read_outs[r];
      EXPECT_EQ(read_out.token, asked.read_outs[r]);
      const auto row =
          fake::ReferenceLogits(asked.prompt.token_ids, asked.prompt.structure, asked.read_outs[r]);
      const auto reference = *ScoredRow::Make(row);
      ASSERT_EQ(read_out.candidate_logprobs.size(), request.candidates.size());
      for (size_t i = 0; i < request.candidates.size(); ++i) {
        EXPECT_EQ(read_out.candidate_logprobs[i], reference.Logprob(request.candidates[i]));
      }
      EXPECT_EQ(read_out.top_logprobs.size(), static_cast<size_t>(request.top_logprobs));
      for (size_t i = 0; i < read_out.top_logprobs.size(); ++i) {
        EXPECT_EQ(reference.Rank(read_out.top_logprobs[i].token_id), static_cast<int32_t>(i + 1));
      }
    }
  }
}

TEST_F(ContinuationsTest, BranchesSamplesAndScoresAreThoseOfTheDefinitionInAnyMix) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    model_.decoder->tiling_value = {.tile_tokens = 8, .split_kv_branches = seed % 2 == 0 ? 0 : 4};
    MakeLoop({.max_step_tokens = static_cast<int32_t>(8 + random() % 100),
              .max_running_sequences = static_cast<int32_t>(1 + random() % 12)},
             /*blocks=*/24 + static_cast<int32_t>(random() % 6));
    std::vector<std::pair<GenerateRequest, std::shared_ptr<RecordingSink>>> requests;
    std::vector<std::pair<ScoreRequest, std::shared_ptr<RecordingScoreSink>>> scores;
    for (int i = 0; i < 12; ++i) {
      const CachePolicy cache = {.bypass = random() % 6 == 0,
                                 .salt = random() % 4 == 0 ? "other" : ""};
      if (random() % 2 == 0) {
        GenerateRequest request = fake::RandomRequest(&random, 1, 90);
        request.prompt = fake::FamiliarPrompt(&random);
        request = WithRandomContinuations(std::move(request), &random);
        request.cache = cache;
        requests.emplace_back(request, Add(request));
      } else {
        ScoreRequest request = RandomScores(&random);
        request.cache = cache;
        scores.emplace_back(request, Add(request));
      }
      for (int steps = static_cast<int>(random() % 8); steps > 0; --steps) Step();
      if (random() % 10 == 0) loop_->Cancel(next_ticket_ - 1 - random() % 3);
    }
    RunUntilIdle();
    for (const auto& [request, sink] : requests) {
      if (sink->finish->reason == FinishReason::kCancelled) continue;
      const auto& ends = sink->finish->continuations;
      if (std::ranges::any_of(ends, [](const ContinuationEnd& end) {
            return end.reason == FinishReason::kCancelled;
          })) {
        continue;
      }
      ASSERT_NO_FATAL_FAILURE(ExpectAnswered(request, *sink));
    }
    for (const auto& [request, sink] : scores) {
      if (sink->error.code() == absl::StatusCode::kCancelled) continue;
      ASSERT_NO_FATAL_FAILURE(ExpectScored(request, *sink));
    }
  }
  EXPECT_GT(preemptions_, 50);
}

TEST_F(ContinuationsTest, APromptIsComputedOnceForAllThatFollowIt) {
  for (const bool bypass : {false, true}) {
    MakeLoop({.max_step_tokens = 512, .max_running_sequences = 64});
    GenerateRequest request = Plain(100, 8);
    request.samples = request.best_of = 16;
    request.cache.bypass = bypass;
    const auto sink = Add(request);
    EXPECT_EQ(TokensComputed(), 100 + 16 * 7);  // The last token of each is never computed.
    EXPECT_EQ(sink->finish->cached_tokens, 0);
    EXPECT_EQ(sink->finish->generated_tokens, 16 * 8);

    ScoreRequest score;
    score.prompts.push_back({.prompt = fake::OneGroupPrompt(&random_, 70)});
    score.prompts[0].continuations = {{1, 2, 3}, {4}, {5, 6}, {7}};
    score.cache.bypass = bypass;
    const auto cold = Add(score);
    EXPECT_EQ(TokensComputed(), 70 + 2 + 1);
    const auto warm = Add(score);
    EXPECT_EQ(TokensComputed(), bypass ? 73 : 70 - 64 + 3);
    EXPECT_EQ(warm->scores->cached_tokens, bypass ? 0 : 64);
    for (int c = 0; c < 4; ++c) {
      EXPECT_EQ(warm->scores->prompts[0].continuations[c].logprobs,
                cold->scores->prompts[0].continuations[c].logprobs);
    }
  }
}

TEST_F(ContinuationsTest, SamplesDifferAndTheFirstIsTheOnlyOneOfAPlainRequest) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 64});
  GenerateRequest request = Plain(30, 12);
  request.sampling.temperature = 1.0f;
  request.sampling.top_k = 0;
  request.sampling.top_p = 1.0f;
  const auto alone = Add(request);
  request.samples = request.best_of = 8;
  const auto many = Add(request);
  RunUntilIdle();
  EXPECT_EQ(many->continuations[0].token_ids, alone->token_ids);
  EXPECT_EQ(many->continuations[0].logprobs, alone->logprobs);
  for (int i = 1; i < 8; ++i) {
    EXPECT_NE(many->continuations[i].token_ids, many->continuations[i - 1].token_ids);
  }
}

TEST_F(ContinuationsTest, BestOfAnswersTheLikeliestPerTokenBestFirst) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(30, 10);
  request.sampling.temperature = 1.5f;
  request.stopping.ignore_eos = false;
  request.samples = request.best_of = 12;
  const auto all = Add(request);
  request.samples = 3;
  const auto best = Add(request);
  RunUntilIdle();
  const auto mean = [](const Recorded& recorded) {
    double sum = 0.0;
    for (const float logprob : recorded.logprobs) sum += logprob;
    return sum / static_cast<double>(recorded.logprobs.size());
  };
  std::vector<Recorded> sorted = all->continuations;
  std::ranges::stable_sort(sorted, std::ranges::greater(), mean);
  ASSERT_EQ(best->continuations.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(best->continuations[i].token_ids, sorted[i].token_ids);
  EXPECT_EQ(best->finish->generated_tokens, all->finish->generated_tokens);
  EXPECT_EQ(best->finish->continuations.size(), 3u);
}

// The group of the last prompt token: then a branch is the plain request of that group.
TEST_F(ContinuationsTest, ABranchIsThePlainRequestInItsGroup) {
  MakeLoop({.max_step_tokens = 100, .max_running_sequences = 8});
  for (int round = 0; round < 30; ++round) {
    GenerateRequest plain = fake::RandomRequest(&random_, 60, 20);
    plain.generated_group = plain.prompt.structure.groups().back();
    GenerateRequest branched = plain;
    branched.branches.push_back({.group = plain.generated_group,
                                 .cue = {},
                                 .predicted_from = plain.prompt.structure.size() - 1});
    branched.branches.push_back({.group = 4, .cue = {1, 2, 3}});
    GenerateRequest with_cue = plain;
    with_cue.generated_group = 4;
    for (const int32_t id : {1, 2, 3}) {
      with_cue.prompt.token_ids.push_back(id);
      with_cue.prompt.segments.push_back(0);
      with_cue.prompt.structure.Append(4);
    }
    const auto plain_sink = Add(plain);
    const auto cue_sink = Add(with_cue);
    const auto sink = Add(branched);
    RunUntilIdle();
    EXPECT_EQ(sink->continuations[0].token_ids, plain_sink->token_ids);
    EXPECT_EQ(sink->continuations[0].logprobs, plain_sink->logprobs);
    EXPECT_EQ(sink->continuations[1].token_ids, cue_sink->token_ids);
    EXPECT_EQ(sink->continuations[1].logprobs, cue_sink->logprobs);
  }
}

TEST_F(ContinuationsTest, EveryRowOfALongPromptIsReadAFewAtATime) {
  MakeLoop({.max_step_tokens = 512, .max_running_sequences = 4}, /*kv_blocks=*/200,
           /*max_logits=*/10 * fake::kVocabulary + 5);
  ScoreRequest request;
  request.prompts.push_back(
      {.prompt = fake::OneGroupPrompt(&random_, 150), .prompt_logprobs_begin = 1});
  const auto sink = Add(request);
  RunUntilIdle();
  ExpectScored(request, *sink);
  EXPECT_EQ(model_.decoder->steps, 1);
  EXPECT_EQ(model_.decoder->late_logit_rows, 149 - 10);
}

TEST_F(ContinuationsTest, ACancelAndADeadlineEndAllContinuations) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 4});
  GenerateRequest request = Plain(30, 500);
  request.samples = request.best_of = 6;  // Two of them wait.
  const auto cancelled = Add(request);
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_GT(loop_->counts().waiting, 0);
  EXPECT_EQ(loop_->counts().queued, 0);
  loop_->Cancel(1);
  EXPECT_TRUE(loop_->idle());
  EXPECT_EQ(loop_->counts().available_blocks, kv_blocks_);
  ASSERT_EQ(cancelled->finish->continuations.size(), 6u);
  for (const ContinuationEnd& end : cancelled->finish->continuations) {
    EXPECT_EQ(end.reason, FinishReason::kCancelled);
  }
  ScoreRequest score;
  score.prompts.push_back({.prompt = fake::OneGroupPrompt(&random_, 70)});
  score.prompts[0].continuations = {{1, 2, 3}};
  score.deadline = absl::Now();
  const auto late = Add(score);
  RunUntilIdle();
  EXPECT_EQ(late->error.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ContinuationsTest, BrokenLogitsOfOneContinuationFailItsRequestOnly) {
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 8});
  ScoreRequest bad;
  bad.prompts.push_back({.prompt = fake::OneGroupPrompt(&random_, 20)});
  bad.prompts[0].continuations = {{1, 2, 3}, {fake::kNanId, 1}, {4, 5}};
  const auto failed = Add(bad);
  const GenerateRequest good =
      WithRandomContinuations(fake::RandomRequest(&random_, 50, 20), &random_);
  const auto sink = Add(good);
  RunUntilIdle();
  EXPECT_EQ(failed->error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(failed->answers, 1);
  ExpectAnswered(good, *sink);
}

TEST_F(ContinuationsTest, ContinuationsWithoutRoomInTheContextEndAtOnce) {
  model_.model->config.context_length = 40;
  MakeLoop({.max_step_tokens = 64, .max_running_sequences = 8});
  GenerateRequest request = Plain(35, 10);
  request.branches = {{.group = 0, .cue = {1, 2, 3, 4, 5}},
                      {.group = 0, .cue = {}, .predicted_from = 34},
                      {.group = 0, .cue = {1, 2, 3}}};
  const auto sink = Add(request);
  RunUntilIdle();
  std::vector<int32_t> generated;
  for (const ContinuationEnd& end : sink->finish->continuations) {
    generated.push_back(end.generated_tokens);
    EXPECT_EQ(end.reason, FinishReason::kLength);
  }
  EXPECT_EQ(generated, (std::vector<int32_t>{0, 5, 2}));
}

}  // namespace
}  // namespace structattn::engine
