// The real decoder behind the serving loop, on a small random model: random mixes of requests,
// chunk sizes, cache states, preemptions, cancels and threads give every request the bits that it
// gets alone, computed at once and without cache.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/generate_task.h"
#include "server/engine/serving_loop.h"
#include "server/model/transformer.h"
#include "tests/server/engine/fakes.h"
#include "tests/server/model/random_checkpoint.h"

namespace structattn {
namespace {

using fake::RecordingSink;

constexpr int32_t kBlockSize = 16;
constexpr int32_t kBlocks = 512;
constexpr int kMixesPerType = 200;
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
  config.rope_theta = 10000.0;
  config.qkv_bias = true;
  return config;
}

class SameBitsTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const ModelConfig config = SmallConfig();
    for (int threads = 1; threads <= 2; ++threads) {
      decoders_.push_back(std::make_unique<Transformer>(
          config, TransformerOptions{.dtype = GetParam()}, std::make_unique<ThreadPool>(threads)));
      decoders_.back()->Load(RandomCheckpoint(config), {});
    }
    kv_ = *AllocateKvCache({.layers = config.layers,
                            .kv_heads = config.kv_heads,
                            .head_dim = config.head_dim,
                            .block_size = kBlockSize,
                            .dtype = GetParam(),
                            .memory_bytes = int64_t{kBlocks} * kBlockSize * 2 * config.layers *
                                            config.kv_heads * config.head_dim *
                                            static_cast<int64_t>(ByteSize(GetParam()))});
  }

  // On the first `blocks` blocks of the memory, with whatever earlier loops left there.
  void MakeLoop(int threads, const SchedulerLimits& limits, int32_t blocks) {
    KvCache kv = kv_;
    kv.blocks = blocks;
    loop_ = std::make_unique<ServingLoop>(decoders_[threads - 1].get(), std::move(kv), limits);
  }

  std::shared_ptr<RecordingSink> Add(const Request& request) {
    auto sink = std::make_shared<RecordingSink>();
    loop_->Accept(std::make_unique<GenerateTask>(next_ticket_++, request, sink, Described()));
    return sink;
  }

  SequenceModel Described() const {
    return {.tokenizer = &tokenizer_,
            .eos_token_ids = eos_,
            .context_length = 4096,
            .block_size = kBlockSize};
  }

  void Step() {
    const int waiting = loop_->waiting();
    loop_->Plan();
    preemptions_ += loop_->waiting() > waiting;
    loop_->Execute();
  }

  void RunUntilIdle() {
    while (!loop_->idle()) Step();
  }

  std::shared_ptr<RecordingSink> Alone(Request request) {
    request.cache.bypass = true;
    MakeLoop(1, {.max_step_tokens = 4096, .max_running_sequences = 1}, kBlocks);
    auto sink = Add(request);
    RunUntilIdle();
    return sink;
  }

  struct Question {
    Request request;
    std::shared_ptr<RecordingSink> alone;
  };

  // A new prompt, or the whole of an earlier request and its answer with more behind it.
  Question RandomQuestion(const std::vector<Question>& earlier, std::mt19937* random) {
    Request request = fake::RandomRequest(random, 1, 90);
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
      for (const int32_t id : before.alone->token_ids) append(id, before.request.generated_group);
      for (int i = 0; i < 5; ++i) append(i, 0);
    }
    auto alone = Alone(request);
    request.cache.bypass = (*random)() % 8 == 0;
    return {std::move(request), std::move(alone)};
  }

  void RunMix(std::mt19937* random);

  static void ExpectSame(const RecordingSink& sink, const RecordingSink& alone) {
    ASSERT_TRUE(sink.finish.has_value()) << sink.error.message();
    if (sink.finish->reason != FinishReason::kCancelled) {
      ASSERT_EQ(sink.token_ids.size(), alone.token_ids.size());
      ASSERT_EQ(sink.finish->reason, alone.finish->reason);
    }
    for (size_t i = 0; i < sink.token_ids.size(); ++i) {
      ASSERT_EQ(sink.token_ids[i], alone.token_ids[i]) << "token " << i;
      ASSERT_EQ(std::memcmp(&sink.logprobs[i], &alone.logprobs[i], sizeof(float)), 0)
          << "token " << i << ": " << sink.logprobs[i] << " and " << alone.logprobs[i];
      for (size_t k = 0; k < sink.top_logprobs[i].size(); ++k) {
        ASSERT_EQ(sink.top_logprobs[i][k].token_id, alone.top_logprobs[i][k].token_id);
        ASSERT_EQ(sink.top_logprobs[i][k].logprob, alone.top_logprobs[i][k].logprob);
      }
    }
  }

  std::vector<std::unique_ptr<Transformer>> decoders_;  // By threads - 1.
  KvCache kv_;
  std::unique_ptr<ServingLoop> loop_;
  fake::FakeTokenizer tokenizer_;
  const std::vector<int32_t> eos_ = {fake::kEosId};
  uint64_t next_ticket_ = 1;
  int64_t tokens_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t preemptions_ = 0;
};

void SameBitsTest::RunMix(std::mt19937* random) {
  std::vector<Question> questions;
  for (int i = 0; i < kRequestsPerMix; ++i) questions.push_back(RandomQuestion(questions, random));
  int32_t largest = 0;
  for (const Question& question : questions) {
    const Request& request = question.request;
    Placement placement(kBlockSize);
    placement.Extend(request.prompt.structure);
    const int32_t slots = placement.SlotsOf(request.prompt.structure.size());
    largest = std::max(largest, slots / kBlockSize + 2 + request.stopping.max_tokens / kBlockSize);
  }
  MakeLoop(1 + static_cast<int>((*random)() % 2),
           {.max_step_tokens = static_cast<int32_t>(12 + (*random)() % 300),
            .max_running_sequences = static_cast<int32_t>(1 + (*random)() % 12)},
           largest + 1 + static_cast<int32_t>((*random)() % 10));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const Question& question : questions) {
    sinks.push_back(Add(question.request));
    for (int steps = static_cast<int>((*random)() % 6); steps > 0; --steps) Step();
    if ((*random)() % 12 == 0) loop_->Cancel(next_ticket_ - 1 - (*random)() % 3);
  }
  RunUntilIdle();
  for (size_t i = 0; i < sinks.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "request " << i);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(*sinks[i], *questions[i].alone));
    tokens_ += static_cast<int64_t>(sinks[i]->token_ids.size());
    cached_tokens_ += sinks[i]->finish->cached_tokens;
  }
}

TEST_P(SameBitsTest, WhateverElseRunsIsCachedOrPreempted) {
  for (uint32_t seed = 0; seed < kMixesPerType; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    ASSERT_NO_FATAL_FAILURE(RunMix(&random));
  }
  std::printf("%d mixes, %lld tokens generated, %lld prompt tokens cached, %lld preemptions\n",
              kMixesPerType, static_cast<long long>(tokens_),
              static_cast<long long>(cached_tokens_), static_cast<long long>(preemptions_));
  EXPECT_GT(cached_tokens_, 10000);
  EXPECT_GT(preemptions_, 50);
}

INSTANTIATE_TEST_SUITE_P(Types, SameBitsTest, testing::Values(DType::kFloat32, DType::kBfloat16),
                         [](const auto& type) { return std::string(Name(type.param)); });

}  // namespace
}  // namespace structattn
