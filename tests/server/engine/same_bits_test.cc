// The real decoder behind the serving loop, on a small random model: random mixes of requests,
// chunk sizes, cache states, preemptions, cancels and threads give every request the bits that it
// gets alone, computed at once and without cache: each branch and sample those of its branch alone,
// and each scored token those that it had when it was generated; and each member of a fusion those
// of the answer scored behind it alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/model/padded_heads.h"
#include "server/model/transformer.h"
#include "tests/server/engine/fakes.h"
#include "tests/server/engine/loop_test.h"
#include "tests/server/model/random_checkpoint.h"

namespace structattn::engine {
namespace {

using fake::Recorded;
using fake::RecordingSink;

constexpr int32_t kBlockSize = 16;
constexpr int32_t kBlocks = 512;
constexpr int kRequestsPerMix = 16;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "qwen2";
  config.vocab_size = fake::kVocabulary;
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.context_length = 4096;
  config.rms_norm_epsilon = 1e-6;
  config.rope.theta = 10000.0;
  config.qkv_bias = true;
  return config;
}

// One layer sees everything, the other the last 20 tokens.
ModelConfig WindowedConfig() {
  ModelConfig config = SmallConfig();
  config.sliding_window = 20;
  config.windowed_layers = {false, true};
  return config;
}

// Heads that lie in longer ones, and a theta that depends on the prompt's length.
ModelConfig DynamicConfig() {
  ModelConfig config = SmallConfig();
  config.head_dim = 20;
  config.rope.scaling = DynamicRopeScaling{.factor = 2, .original_max_position_embeddings = 40};
  return config;
}

// The second layer with twelve experts, of which a token has three, and a shared one.
ModelConfig MixtureModel() {
  ModelConfig config = SmallConfig();
  config.architecture = "qwen2_moe";
  config.mixture = {.experts = 12,
                    .chosen = 3,
                    .expert_size = 48,
                    .shared_expert_size = 80,
                    .layers = {false, true}};
  return config;
}

struct Case {
  std::string name;
  DType dtype;
  ModelConfig config;
  int mixes;
};

class SameBitsTest : public testing::TestWithParam<Case>, protected LoopDriver {
 protected:
  void SetUp() override {
    const ModelConfig& config = GetParam().config;
    const int64_t bytes = int64_t{kBlocks} * kBlockSize * 2 * config.layers * config.kv_heads *
                          PaddedHeads::PaddedDim(config.head_dim) *
                          static_cast<int64_t>(ByteSize(GetParam().dtype));
    for (int threads = 1; threads <= 2; ++threads) {
      decoders_.push_back(
          std::make_unique<Transformer>(config, TransformerOptions{.dtype = GetParam().dtype},
                                        std::make_unique<ThreadPool>(threads)));
      decoders_.back()->Load(RandomCheckpoint(config), {});
      ASSERT_EQ(decoders_.back()->AllocateKv(bytes, kBlockSize)->blocks, kBlocks);
    }
  }

  // On the first `blocks` blocks of the memory, with whatever earlier loops left there.
  void MakeLoop(int threads, const SchedulerLimits& limits, int32_t blocks) {
    LoopDriver::MakeLoop(decoders_[threads - 1].get(),
                         {.tokenizer = &tokenizer_,
                          .eos_token_ids = eos_,
                          .context_length = kContext,
                          .block_size = kBlockSize,
                          .has_window = decoders_[0]->tiling().window != kNoWindow,
                          .dynamic_rope_length = decoders_[0]->dynamic_rope_length()},
                         {.kv_blocks = blocks, .limits = limits});
  }

  std::shared_ptr<RecordingSink> Alone(GenerateRequest request) {
    request.cache.bypass = true;
    MakeLoop(1, {.max_step_tokens = 4096, .max_running_sequences = 1}, kBlocks);
    auto sink = Add(request);
    RunUntilIdle();
    return sink;
  }

  struct Question {
    GenerateRequest request;
    std::vector<std::shared_ptr<RecordingSink>> alone;  // Of each branch.
  };

  // Branches in groups that the prompt has, or with a cue.
  static void AddBranches(GenerateRequest* request, std::mt19937* random) {
    const Structure& structure = request->prompt.structure;
    for (int count = static_cast<int>((*random)() % 4); count > 0; --count) {
      const structattn::Run& run = structure.runs()[(*random)() % structure.runs().size()];
      Branch branch = {.group = run.group, .cue = {}, .predicted_from = run.end - 1};
      if ((*random)() % 2 == 0) {
        branch.group = static_cast<int32_t>((*random)() % 6);
        for (int i = 0; i < 20; ++i) branch.cue.push_back(static_cast<int32_t>((*random)() % 3));
      }
      request->branches.push_back(branch);
    }
    request->samples = request->best_of = 1 + static_cast<int32_t>((*random)() % 3);
  }

  static GenerateRequest Fused(GenerateRequest request, std::mt19937* random) {
    request.samples = request.best_of = 1;
    request.fusion = Fusion();
    if ((*random)() % 2 == 0) request.fusion->method = FusionMethod::kMaximum;
    if ((*random)() % 4 == 0) {
      request.fusion->confidence_samples = 2;
    } else {
      const size_t members = request.branches.size();
      request.fusion->weights.assign(members, 1.0 / static_cast<double>(members));
    }
    return request;
  }

  // What a member that has a cue thought of the fused answer is its score behind prompt and cue.
  // A theta that depends on the prompt's length makes the cue, as part of a prompt, another one.
  void ExpectMembersScored(const Question& question) {
    if (DynamicRopeLength(GetParam().config.rope.scaling) < kContext) return;
    const Recorded& answer = question.alone[0]->continuations[0];
    for (size_t member = 0; member < question.request.branches.size(); ++member) {
      const Branch& branch = question.request.branches[member];
      if (branch.cue.empty()) continue;
      ScoreRequest request;
      request.cache.bypass = true;
      ScoredPrompt& scored = request.prompts.emplace_back(
          ScoredPrompt{.prompt = question.request.prompt, .group = branch.group});
      for (const int32_t id : branch.cue) {
        scored.prompt.token_ids.push_back(id);
        scored.prompt.structure.Append(branch.group);
      }
      scored.continuations = {answer.token_ids};
      MakeLoop(1, {.max_step_tokens = 4096, .max_running_sequences = 1}, kBlocks);
      const auto sink = Add(request);
      RunUntilIdle();
      for (size_t i = 0; i < answer.token_ids.size(); ++i) {
        ASSERT_EQ(sink->scores->prompts[0].continuations[0].logprobs[i],
                  answer.member_logprobs[i][member])
            << "member " << member << ", token " << i;
        ++member_tokens_;
      }
    }
  }

  // The answers of the first branch, whose first token follows the prompt, as a score request.
  static ScoreRequest ScoresOf(const Question& question) {
    ScoreRequest request;
    ScoredPrompt& scored = request.prompts.emplace_back(
        ScoredPrompt{.prompt = question.request.prompt, .group = question.request.generated_group});
    for (const Recorded& answer : question.alone[0]->continuations) {
      scored.continuations.push_back(answer.token_ids);
    }
    request.cache = question.request.cache;
    return request;
  }

  // A new prompt, or the whole of an earlier request and its answer with more behind it.
  Question RandomQuestion(const std::vector<Question>& earlier, std::mt19937* random) {
    GenerateRequest request = fake::RandomRequest(random, 1, 90);
    request.top_logprobs = 3;
    if (earlier.empty() || (*random)() % 4 != 0) {
      request.prompt = fake::FamiliarPrompt(random);
    } else {
      const Question& before = earlier[(*random)() % earlier.size()];
      request.prompt = before.request.prompt;
      const auto append = [&](int32_t id, int group) {
        request.prompt.token_ids.push_back(id);
        request.prompt.segments.push_back(0);
        request.prompt.structure.Append(group);
      };
      const Recorded& answer = before.alone[0]->continuations[0];
      for (const int32_t id : answer.token_ids) append(id, answer.group);
      for (int i = 0; i < 5; ++i) append(i, 0);
    }
    if ((*random)() % 3 == 0) AddBranches(&request, random);
    Question question = {.request = request, .alone = {}};
    if (!request.branches.empty() && (*random)() % 2 == 0) {
      question.request = Fused(request, random);
      question.alone = {Alone(question.request)};
      ExpectMembersScored(question);
      return question;
    }
    for (size_t branch = 0; branch < std::max<size_t>(request.branches.size(), 1); ++branch) {
      GenerateRequest one = request;
      if (!one.branches.empty()) one.branches = {one.branches[branch]};
      question.alone.push_back(Alone(one));
      if (std::exchange(one.samples, 1) == 1) continue;
      one.best_of = 1;
      ExpectSame(Alone(one)->continuations[0], question.alone.back()->continuations[0]);
    }
    question.request.cache.bypass = (*random)() % 8 == 0;
    return question;
  }

  void RunMix(std::mt19937* random);
  void ExpectScoresOf(const Question& question, const fake::RecordingScoreSink& sink);

  static void ExpectSame(const Recorded& sink, const Recorded& alone) {
    ASSERT_TRUE(sink.finish.has_value());
    if (sink.finish != FinishReason::kCancelled) {
      ASSERT_EQ(sink.token_ids.size(), alone.token_ids.size());
      ASSERT_EQ(sink.finish, alone.finish);
    }
    for (size_t i = 0; i < sink.token_ids.size(); ++i) {
      ASSERT_EQ(sink.token_ids[i], alone.token_ids[i]) << "token " << i;
      ASSERT_EQ(std::memcmp(&sink.logprobs[i], &alone.logprobs[i], sizeof(float)), 0)
          << "token " << i << ": " << sink.logprobs[i] << " and " << alone.logprobs[i];
      if (!alone.member_logprobs.empty()) {
        ASSERT_EQ(sink.member_logprobs[i], alone.member_logprobs[i]);
      }
      for (size_t k = 0; k < sink.top_logprobs[i].size(); ++k) {
        ASSERT_EQ(sink.top_logprobs[i][k].token_id, alone.top_logprobs[i][k].token_id);
        ASSERT_EQ(sink.top_logprobs[i][k].logprob, alone.top_logprobs[i][k].logprob);
      }
    }
  }

  std::vector<std::unique_ptr<Transformer>> decoders_;  // By threads - 1.
  fake::FakeTokenizer tokenizer_;
  const std::vector<int32_t> eos_ = {fake::kEosId};
  int64_t tokens_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t scored_tokens_ = 0;
  int64_t member_tokens_ = 0;
};

void SameBitsTest::RunMix(std::mt19937* random) {
  std::vector<Question> questions;
  for (int i = 0; i < kRequestsPerMix; ++i) questions.push_back(RandomQuestion(questions, random));
  int32_t largest = 0;
  for (const Question& question : questions) {
    const GenerateRequest& request = question.request;
    Placement placement(kBlockSize);
    placement.Extend(request.prompt.structure);
    const int32_t slots = placement.SlotsOf(request.prompt.structure.size());
    largest = std::max(largest, slots / kBlockSize + 5 + request.stopping.max_tokens / kBlockSize);
  }
  MakeLoop(1 + static_cast<int>((*random)() % 2),
           {.max_step_tokens = static_cast<int32_t>(12 + (*random)() % 300),
            .max_running_sequences = static_cast<int32_t>(1 + (*random)() % 12)},
           largest + 1 + static_cast<int32_t>((*random)() % 10));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::pair<const Question*, std::shared_ptr<fake::RecordingScoreSink>>> scores;
  for (const Question& question : questions) {
    if (question.request.branches.empty() && (*random)() % 3 == 0) {
      scores.emplace_back(&question, Add(ScoresOf(question)));
    }
    sinks.push_back(Add(question.request));
    for (int steps = static_cast<int>((*random)() % 6); steps > 0; --steps) Step();
    if ((*random)() % 12 == 0) loop_->Cancel(next_ticket_ - 1 - (*random)() % 3);
  }
  RunUntilIdle();
  for (size_t i = 0; i < sinks.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "request " << i);
    ASSERT_TRUE(sinks[i]->finish.has_value()) << sinks[i]->error.message();
    const int32_t samples = questions[i].request.samples;
    for (size_t c = 0; c < sinks[i]->continuations.size(); ++c) {
      SCOPED_TRACE(testing::Message() << "continuation " << c);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(
          sinks[i]->continuations[c], questions[i].alone[c / samples]->continuations[c % samples]));
    }
    tokens_ += sinks[i]->finish->generated_tokens;
    cached_tokens_ += sinks[i]->finish->cached_tokens;
  }
  for (const auto& [question, sink] : scores) {
    if (sink->error.code() == absl::StatusCode::kCancelled) continue;
    ASSERT_NO_FATAL_FAILURE(ExpectScoresOf(*question, *sink));
  }
}

void SameBitsTest::ExpectScoresOf(const Question& question, const fake::RecordingScoreSink& sink) {
  ASSERT_TRUE(sink.scores.has_value()) << sink.error.message();
  const PromptScores& scores = sink.scores->prompts[0];
  for (size_t c = 0; c < scores.continuations.size(); ++c) {
    const Recorded& answer = question.alone[0]->continuations[c];
    ASSERT_EQ(scores.continuations[c].logprobs.size(), answer.logprobs.size());
    for (size_t i = 0; i < answer.logprobs.size(); ++i) {
      ASSERT_EQ(
          std::memcmp(&scores.continuations[c].logprobs[i], &answer.logprobs[i], sizeof(float)), 0)
          << "continuation " << c << ", token " << i;
      // The rank agrees with the list of best tokens.
      const std::vector<TokenLogprob>& best = answer.top_logprobs[i];
      const auto place = std::ranges::find(best, answer.token_ids[i], &TokenLogprob::token_id);
      if (place == best.end()) {
        ASSERT_GT(scores.continuations[c].ranks[i], static_cast<int32_t>(best.size()));
      } else {
        ASSERT_EQ(scores.continuations[c].ranks[i], place - best.begin() + 1);
      }
      ++scored_tokens_;
    }
  }
}

TEST_P(SameBitsTest, WhateverElseRunsIsCachedOrPreempted) {
  const int mixes = GetParam().mixes;
  for (int seed = 0; seed < mixes; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    ASSERT_NO_FATAL_FAILURE(RunMix(&random));
  }
  std::printf(
      "%d mixes, %lld tokens generated, %lld scored, %lld prompt tokens cached, %lld preemptions\n",
      mixes, static_cast<long long>(tokens_), static_cast<long long>(scored_tokens_),
      static_cast<long long>(cached_tokens_), static_cast<long long>(preemptions_));
  EXPECT_GT(scored_tokens_, 50 * mixes);
  EXPECT_GT(cached_tokens_, 50 * mixes);
  EXPECT_GT(4 * preemptions_, mixes);
  if (DynamicRopeLength(GetParam().config.rope.scaling) > kContext) {
    EXPECT_GT(member_tokens_, 25 * mixes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, SameBitsTest,
    testing::Values(Case{"float32", DType::kFloat32, SmallConfig(), 200},
                    Case{"bfloat16", DType::kBfloat16, SmallConfig(), 200},
                    Case{"mixture_float32", DType::kFloat32, MixtureModel(), 40},
                    Case{"mixture_bfloat16", DType::kBfloat16, MixtureModel(), 40},
                    Case{"window_float32", DType::kFloat32, WindowedConfig(), 40},
                    Case{"window_bfloat16", DType::kBfloat16, WindowedConfig(), 40},
                    Case{"dynamic_float32", DType::kFloat32, DynamicConfig(), 20},
                    Case{"dynamic_bfloat16", DType::kBfloat16, DynamicConfig(), 20}),
    [](const auto& model) { return model.param.name; });

}  // namespace
}  // namespace structattn::engine
