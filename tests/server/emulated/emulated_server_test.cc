// The whole server on emulated CUDA kernels, over gRPC: twenty mixed requests, several at a time,
// must give the tokens that the same program gives on the CPU, up to where two tokens lie so near
// to each other that bfloat16 decides. The emulated server ends with an error code when the
// emulator has anything to report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/client.h"
#include "server/model/tensor_table.h"
#include "tests/server/emulated/tolerance.h"
#include "tests/server/model/model_files.h"
#include "tests/server/model/random_checkpoint.h"
#include "tests/server/server_process.h"

namespace structattn {
namespace {

constexpr int kRequests = 20;
constexpr int kConcurrency = 5;
constexpr int kGenerated = 6;
constexpr int kLayers = 2;

nlohmann::json LlamaConfig() {
  nlohmann::json config = TinyConfig();
  config["hidden_size"] = 128;
  config["intermediate_size"] = 192;
  config["num_attention_heads"] = 4;
  config["num_key_value_heads"] = 2;
  config["head_dim"] = 64;
  config["max_position_embeddings"] = 1024;
  config["torch_dtype"] = "bfloat16";
  return config;
}

nlohmann::json Qwen3Config() {
  nlohmann::json config = LlamaConfig();
  config["architectures"] = {"Qwen3ForCausalLM"};
  config["model_type"] = "qwen3";
  config["num_attention_heads"] = 3;
  config["num_key_value_heads"] = 1;
  config["head_dim"] = 128;
  config["tie_word_embeddings"] = true;
  return config;
}

// A folder with random weights in bfloat16 and a tokenizer of bytes.
void WriteModel(const nlohmann::json& json, const TempDirectory& directory) {
  const ModelConfig config = *ParseModelConfig(json.dump(), "");
  const RandomCheckpoint checkpoint(config, DType::kBfloat16);
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    const LoadedMatrix matrix = checkpoint.Read(spec.name);
    FileTensor tensor{spec.name, "BF16", {spec.rows, spec.columns}, ""};
    if (spec.rows == 1) tensor.shape = {spec.columns};
    for (int64_t i = 0; i < spec.rows * spec.columns; ++i) {
      const float value = static_cast<const float*>(matrix.view.data)[i];
      tensor.bytes += BytesOf(FromFloat<Bfloat16>(value).bits);
    }
    tensors.push_back(std::move(tensor));
  }
  directory.Write("config.json", json.dump());
  directory.Write("tokenizer.json", TinyTokenizer());
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
}

// ---- Requests: an instruction, questions, a cue; presets and tables; text of random letters.

std::string RandomText(std::mt19937* random, int longest) {
  std::string text;
  for (int left = 1 + static_cast<int>((*random)() % longest); left > 0; --left) {
    text += static_cast<char>('a' + (*random)() % 26);
  }
  return text;
}

void AddSegment(v1::SegmentType type, const std::string& text, v1::Prompt* prompt) {
  v1::Segment* segment = prompt->add_segments();
  segment->set_type(type);
  segment->set_text(text);
}

v1::GenerateRequest MakeRequest(int index) {
  std::mt19937 random(1000 + index);
  v1::GenerateRequest request;
  request.set_model("m");
  v1::Prompt* prompt = request.mutable_prompt();
  AddSegment(v1::SEGMENT_TYPE_INSTRUCTION, RandomText(&random, index % 7 == 6 ? 300 : 30), prompt);
  const int questions = 1 + static_cast<int>(random() % 4);
  for (int q = 0; q < questions; ++q) {
    AddSegment(v1::SEGMENT_TYPE_QUESTION, RandomText(&random, 25), prompt);
    prompt->mutable_segments(q + 1)->set_paraphrase_index(q);
  }
  AddSegment(v1::SEGMENT_TYPE_ANSWER_CUE, RandomText(&random, 6), prompt);
  if (index % 5 < 4) {
    prompt->mutable_rule()->set_preset(static_cast<v1::RulePreset>(1 + index % 5));
  } else {
    for (int group = 0; group < 6; ++group) {
      v1::VisibleGroups* row = prompt->mutable_rule()->mutable_table()->add_visible();
      for (int seen = 0; seen < 6; ++seen) {
        if (seen == group || random() % 2 == 0) row->add_groups(seen);
      }
    }
  }
  prompt->set_positions(index % 2 == 0 ? v1::POSITION_POLICY_SEQUENTIAL
                                       : v1::POSITION_POLICY_ALIGNED);
  request.mutable_stopping()->set_max_tokens(kGenerated);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_output()->set_top_logprobs(2);
  return request;
}

// ---- One server, all requests.

std::vector<client::Generation> ServeAll(const std::string& path, const std::string& device) {
  ServerProcess process(STRUCTATTN_EMULATED_SERVER_BINARY,
                        {"--model", "m=" + path, "--device", device, "--listen", "127.0.0.1:0",
                         "--kv-memory-mb", "8", "--threads", "1", "--log-level", "warn"});
  const client::Client client(AddressOf(process.ReadLine()));
  std::vector<client::Generation> generations(kRequests);
  std::atomic<int> next = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kConcurrency; ++t) {
    threads.emplace_back([&] {
      for (int i = next++; i < kRequests; i = next++) {
        grpc::ClientContext context;
        const grpc::Status status = client.Generate(context, MakeRequest(i), {}, &generations[i]);
        EXPECT_TRUE(status.ok()) << status.error_message();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.ExitCode(), 0) << process.log();
  return generations;
}

double Margin(const v1::TopLogprobs& top) {
  return top.entries(0).logprob() - top.entries(1).logprob();
}

// Tokens compared until the two part, which they may only where the two best are near.
int CompareTokens(const client::Continued& cpu, const client::Continued& emulated,
                  double tolerance) {
  EXPECT_EQ(cpu.token_ids.size(), static_cast<size_t>(kGenerated));
  EXPECT_EQ(emulated.token_ids.size(), static_cast<size_t>(kGenerated));
  for (int i = 0; i < kGenerated; ++i) {
    if (cpu.token_ids[i] != emulated.token_ids[i]) {
      EXPECT_LE(Margin(cpu.top_logprobs[i]), tolerance) << "token " << i;
      return i;
    }
    EXPECT_NEAR(cpu.logprobs[i], emulated.logprobs[i], tolerance) << "token " << i;
  }
  return kGenerated;
}

struct Case {
  std::string name;
  nlohmann::json (*config)();
  double score_rms;
};

void PrintTo(const Case& shape, std::ostream* out) { *out << shape.name; }

class EmulatedServerTest : public testing::TestWithParam<Case> {};

TEST_P(EmulatedServerTest, AnswersTwentyMixedRequestsLikeTheCpu) {
  const TempDirectory directory;
  WriteModel(GetParam().config(), directory);
  const std::vector<client::Generation> cpu = ServeAll(directory.path(), "cpu");
  const std::vector<client::Generation> emulated = ServeAll(directory.path(), "emulated");
  const double tolerance = Bfloat16LogprobTolerance(kLayers, GetParam().score_rms, kLogitRms);
  int equal = 0;
  for (int i = 0; i < kRequests; ++i) {
    SCOPED_TRACE("request " + std::to_string(i));
    EXPECT_EQ(cpu[i].started.provenance().device(), "cpu");
    EXPECT_EQ(emulated[i].started.provenance().device(), "emulated");
    EXPECT_EQ(cpu[i].started.provenance().structure_digest(),
              emulated[i].started.provenance().structure_digest());
    equal += CompareTokens(cpu[i].continuations[0], emulated[i].continuations[0], tolerance);
  }
  std::printf("%d of %d tokens compared, all equal but for near ties\n", equal,
              kRequests * kGenerated);
  EXPECT_GT(equal, kRequests * kGenerated / 2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedServerTest,
                         testing::Values(Case{"Llama", &LlamaConfig, kLlamaScoreRms},
                                         Case{"Qwen3", &Qwen3Config, kQwen3ScoreRms}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace structattn
