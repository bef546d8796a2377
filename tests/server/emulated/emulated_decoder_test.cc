// The real engine and the real transformer on emulated CUDA kernels against the CPU path: twenty
// mixed structured requests on random two-layer models in bfloat16, in mixed batches with chunked
// prompts, fed the tokens that the CPU path chose. The emulator must have nothing to report.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/embedding/embedding.h"
#include "server/engine/engine.h"
#include "server/model/transformer.h"
#include "tests/server/emulated/forced_decoder.h"
#include "tests/server/emulated/tolerance.h"
#include "tests/server/emulated/torch_memory.h"
#include "tests/server/engine/fakes.h"
#include "tests/server/model/random_checkpoint.h"
#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr int kRequests = 20;
constexpr int kGenerated = 8;
constexpr int kLayers = 2;
constexpr uint64_t kSeed = 20261123;

ModelConfig LlamaShape() {
  ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = engine::fake::kVocabulary;
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.layers = kLayers;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.context_length = 1024;
  config.rms_norm_epsilon = 1e-5;
  config.rope.theta = 500000.0;
  return config;
}

ModelConfig Qwen3Shape() {
  ModelConfig config = LlamaShape();
  config.architecture = "qwen3";
  config.heads = 3;
  config.kv_heads = 1;
  config.head_dim = 128;
  config.rms_norm_epsilon = 1e-6;
  config.rope.theta = 1000000.0;
  config.tied_embeddings = true;
  config.qk_norm = true;
  return config;
}

// ---- Requests.

RuleTable RandomRule(std::mt19937* random, int request) {
  if (request % 5 < 4) return RuleTable::Preset(static_cast<RulePreset>(request % 5));
  RuleTable rule = RuleTable::Preset(RulePreset::kCausal);
  for (int group = 0; group < rule.rows; ++group) {
    rule.visible[group] = (uint64_t{(*random)()} << 32 | (*random)()) | (uint64_t{1} << group);
  }
  return rule;
}

// Runs of groups, some of them single tokens; two prompts are long enough for several splits.
engine::GenerateRequest MakeRequest(std::mt19937* random, int index, bool causal) {
  const RuleTable own_rule = RandomRule(random, index);
  const RuleTable rule = causal ? RuleTable::Preset(RulePreset::kCausal) : own_rule;
  engine::GenerateRequest request{
      .request_id = "",
      .prompt = {.token_ids = {},
                 .segments = {},
                 .structure = Structure(rule, index % 2 == 0 ? PositionPolicy::kSequential
                                                             : PositionPolicy::kAligned)},
      .generated_group = index % 3 == 0 ? static_cast<int>((*random)() % 3) : 0,
      .sampling = {},
      .stopping = {.max_tokens = kGenerated, .stop_strings = {}, .stop_token_ids = {}}};
  const int size = index % 10 == 3 ? 270 + static_cast<int>((*random)() % 40)
                                   : 8 + static_cast<int>((*random)() % 90);
  const int longest = index % 4 == 0 ? 2 : 30;
  int group = 0;
  while (request.prompt.structure.size() < size) {
    const int end = std::min(
        size, request.prompt.structure.size() + 1 + static_cast<int>((*random)() % longest));
    while (request.prompt.structure.size() < end) {
      const bool first = request.prompt.token_ids.empty();
      request.prompt.token_ids.push_back(
          first ? index : kRequests + static_cast<int>((*random)() % (90 - kRequests)));
      request.prompt.structure.Append(group);
    }
    group = static_cast<int>((*random)() % 4);
  }
  request.prompt.segments.assign(size, 0);
  return request;
}

std::vector<engine::GenerateRequest> MakeRequests(bool causal = false) {
  std::vector<engine::GenerateRequest> requests;
  for (int i = 0; i < kRequests; ++i) {
    std::mt19937 random(kSeed + i);
    requests.push_back(MakeRequest(&random, i, causal));
  }
  return requests;
}

// ---- Serving them.

struct Outcome {
  std::vector<Trace> traces;  // By request.
  int mixed_steps = 0;
  int shared_steps = 0;
  int64_t replayed = 0;
};

using Script = std::vector<std::vector<int32_t>>;

struct Run {
  ModelConfig config;
  TransformerOptions options;
  Script script;        // Empty: each request goes on with its best token.
  bool causal = false;  // All see all: what a lost mask would do.
};

Outcome Serve(const Run& run) {
  std::vector<engine::GenerateRequest> requests = MakeRequests(run.causal);
  std::vector<int32_t> sizes;
  for (const engine::GenerateRequest& request : requests)
    sizes.push_back(request.prompt.structure.size());
  auto transformer =
      std::make_unique<Transformer>(run.config, run.options, std::make_unique<ThreadPool>(1));
  transformer->Load(RandomCheckpoint(run.config, DType::kBfloat16), {});
  const Transformer* const inner = transformer.get();
  auto forced = std::make_unique<ForcedDecoder>(std::move(transformer), sizes, run.script);
  ForcedDecoder* const outer = forced.get();
  engine::fake::FakeModel model;
  model.model->config = run.config;
  model.model->decoder = std::move(forced);
  const KvShape kv = *model.model->decoder->AllocateKv(3 << 20, /*block_size=*/16);
  std::vector<std::shared_ptr<engine::fake::RecordingSink>> sinks;
  {
    engine::Engine engine(model.model.get(), kv,
                          {.max_running_sequences = 6, .max_step_tokens = 48});
    for (engine::GenerateRequest& request : requests) {
      sinks.push_back(std::make_shared<engine::fake::RecordingSink>());
      EXPECT_TRUE(engine.Submit(std::move(request), sinks.back()).ok());
      if (sinks.size() == 1) outer->WaitForFirstStep();
    }
    outer->Begin();
    for (const auto& sink : sinks) sink->WaitUntilDone();
  }
  for (const auto& sink : sinks) EXPECT_TRUE(sink->error.ok()) << sink->error;
  return {.traces = outer->traces(),
          .mixed_steps = outer->mixed_steps(),
          .shared_steps = outer->shared_steps(),
          .replayed = inner->graphs().replayed()};
}

Script ScriptOf(const Outcome& outcome) {
  Script script;
  for (const Trace& trace : outcome.traces) script.push_back(trace.best);
  return script;
}

// ---- Comparing them.

// Of one step's log-probabilities, which lie around their mean as the logits do.
double Tolerance(const std::vector<float>& logprobs, double score_rms) {
  double mean = 0.0;
  double squares = 0.0;
  for (const float logprob : logprobs) mean += logprob / static_cast<double>(logprobs.size());
  for (const float logprob : logprobs) {
    squares += (logprob - mean) * (logprob - mean) / static_cast<double>(logprobs.size());
  }
  return Bfloat16LogprobTolerance(kLayers, score_rms, std::sqrt(squares));
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {  // NaN must not pass for small.
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

// Between the two best.
double Margin(std::vector<float> logprobs) {
  std::ranges::nth_element(logprobs, logprobs.begin() + 1, std::greater());
  return logprobs[0] - logprobs[1];
}

struct Comparison {
  double worst_share = 0.0;  // Of the tolerance.
  int steps = 0;
  int decided = 0;  // Steps whose two best differ by more than the tolerance.
  int wrong = 0;    // Decided steps with another best token.
};

Comparison Compare(const Outcome& expected, const Outcome& got, double score_rms) {
  Comparison comparison;
  for (int r = 0; r < kRequests; ++r) {
    const Trace& a = expected.traces[r];
    const Trace& b = got.traces[r];
    EXPECT_EQ(a.best.size(), static_cast<size_t>(kGenerated));
    EXPECT_EQ(b.best.size(), a.best.size());
    for (size_t step = 0; step < std::min(a.best.size(), b.best.size()); ++step) {
      const double tolerance = Tolerance(a.logprobs[step], score_rms);
      const double share = LargestDifference(a.logprobs[step], b.logprobs[step]) / tolerance;
      if (!(share <= comparison.worst_share)) comparison.worst_share = share;
      const bool decided = Margin(a.logprobs[step]) > tolerance;
      comparison.steps += 1;
      comparison.decided += decided;
      comparison.wrong += decided && a.best[step] != b.best[step];
    }
  }
  return comparison;
}

double MeanDifference(const Outcome& a, const Outcome& b) {
  double sum = 0.0;
  int64_t count = 0;
  for (int r = 0; r < kRequests; ++r) {
    for (size_t step = 0; step < a.traces[r].logprobs.size(); ++step) {
      const std::vector<float>& x = a.traces[r].logprobs[step];
      for (size_t i = 0; i < x.size(); ++i) {
        sum += std::abs(static_cast<double>(x[i]) - b.traces[r].logprobs[step][i]);
        ++count;
      }
    }
  }
  return sum / static_cast<double>(count);
}

struct Case {
  std::string name;
  ModelConfig (*shape)();
  double score_rms;
  bool step_graphs = false;
  Quantization quantization = Quantization::kNone;
};

void PrintTo(const Case& shape, std::ostream* out) { *out << shape.name; }

class EmulatedDecoderTest : public testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() { RegisterTorchMemory(); }
};

TEST_P(EmulatedDecoderTest, TwentyMixedRequestsAgreeWithTheCpuAtEveryStep) {
  const ModelConfig config = GetParam().shape();
  const Quantization quantization = GetParam().quantization;
  const Outcome cpu =
      Serve({config, {.dtype = DType::kBfloat16, .quantization = quantization}, {}});
  const Script script = ScriptOf(cpu);
  simt::SetSeed(kSeed);
  const Outcome emulated = Serve({config,
                                  {.dtype = DType::kBfloat16,
                                   .quantization = quantization,
                                   .device = {.kind = DeviceKind::kEmulated},
                                   .step_graphs = GetParam().step_graphs},
                                  script});
  EXPECT_EQ(simt::Describe(simt::TakeReports()), "") << "seed " << kSeed;

  const Comparison comparison = Compare(cpu, emulated, GetParam().score_rms);
  std::printf("%d steps, %d decided; worst difference %.3f of the tolerance\n", comparison.steps,
              comparison.decided, comparison.worst_share);
  EXPECT_EQ(comparison.steps, kRequests * kGenerated);
  EXPECT_LE(comparison.worst_share, 1.0);
  EXPECT_EQ(comparison.wrong, 0);
  EXPECT_GT(comparison.decided, comparison.steps / 2);
  // The batches were what they are meant to be.
  EXPECT_GT(emulated.mixed_steps, 10);
  EXPECT_GT(emulated.shared_steps, 10);
  EXPECT_EQ(emulated.replayed > 0, GetParam().step_graphs);

  // Both sides are equally far from the same model in float32 (float64's stand-in, 2^16 times as
  // fine as what is compared): the emulated one does not live off a generous tolerance.
  const Outcome exact =
      Serve({config, {.dtype = DType::kFloat32, .quantization = quantization}, script});
  const double cpu_error = MeanDifference(cpu, exact);
  const double emulated_error = MeanDifference(emulated, exact);
  std::printf("mean error: CPU %.5f, emulated %.5f\n", cpu_error, emulated_error);
  EXPECT_LE(emulated_error, 1.25 * cpu_error);

  // And the tolerance is one that a lost mask would break.
  const Outcome unmasked = Serve(
      {config, {.dtype = DType::kBfloat16, .quantization = quantization}, script, /*causal=*/true});
  EXPECT_GT(Compare(cpu, unmasked, GetParam().score_rms).worst_share, 3.0);
}

// What the tests above rest on: a tensor's end is the end of what a kernel may read.
TEST(EmulatedMemoryTest, AReadBeyondATensorIsReported) {
  RegisterTorchMemory();
  const at::Tensor table = at::zeros({4, 64});
  const at::Tensor ids = at::full({1}, 4, at::kInt);
  at::Tensor output = at::empty({1, 64});
  Embedding({.device = DeviceKind::kEmulated}, {.table = table.const_data_ptr(),
                                                .ids = ids.const_data_ptr<int32_t>(),
                                                .output = output.data_ptr<float>(),
                                                .rows = 1,
                                                .columns = 64});
  EXPECT_NE(simt::Describe(simt::TakeReports()), "");
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, EmulatedDecoderTest,
    testing::Values(Case{"Llama", &LlamaShape, kLlamaScoreRms, false},
                    Case{"LlamaInt8", &LlamaShape, kLlamaScoreRms, false, Quantization::kInt8},
                    Case{"Qwen3Int8", &Qwen3Shape, kQwen3ScoreRms, true, Quantization::kInt8},
                    Case{"LlamaGraphs", &LlamaShape, kLlamaScoreRms, true},
                    Case{"Qwen3", &Qwen3Shape, kQwen3ScoreRms, false},
                    Case{"Qwen3Graphs", &Qwen3Shape, kQwen3ScoreRms, true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace structattn
