// What is often taken for a model: each is refused quickly, by what it is.
#include "server/model/model_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "server/model/checkpoint.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string ErrorOf(const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  const auto checkpoint = Checkpoint::Open(path);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  return std::string(checkpoint.status().message());
}

constexpr std::string_view kLfsPointer =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 268435456\n";

TEST(ModelPathTest, NamesAGitLfsPointer) {
  for (const std::string_view name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const TempDirectory directory;
    WriteTinyModel(directory);
    directory.Write(name, kLfsPointer);
    EXPECT_THAT(ErrorOf(directory.path()),
                AllOf(HasSubstr(directory.Path(name) + ": a Git LFS pointer of 134 bytes"),
                      HasSubstr("'git lfs pull'")));
  }
  const TempDirectory directory;
  EXPECT_THAT(ErrorOf(directory.Write("m.gguf", kLfsPointer)), HasSubstr("a Git LFS pointer"));
}

TEST(ModelPathTest, NamesTheRevisionBelowTheTopOfACacheFolder) {
  const TempDirectory directory;
  const auto add = [&directory](std::string_view revision) {
    std::filesystem::create_directories(directory.Path("snapshots") + "/" + std::string(revision));
  };
  add("0a1b");
  const std::string first = directory.Path("snapshots/0a1b");
  EXPECT_THAT(ErrorOf(directory.path()),
              AllOf(HasSubstr("the top of a Hugging Face cache folder"), HasSubstr(first)));
  add("2c3d");
  const std::string second = directory.Path("snapshots/2c3d");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr(first + ", " + second));
  std::filesystem::create_directory(directory.Path("refs"));
  directory.Write("refs/main", "2c3d");
  EXPECT_THAT(ErrorOf(directory.path()), AllOf(HasSubstr(second), testing::Not(HasSubstr("0a1b"))));
}

TEST(ModelPathTest, NamesAnAdapter) {
  const TempDirectory directory;
  directory.Write("adapter_config.json", R"({"base_model_name_or_path": "Qwen/Qwen3-0.6B"})");
  directory.Write("adapter_model.safetensors", "");
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("an adapter (adapter_config.json) of 'Qwen/Qwen3-0.6B', not a model"));
}

TEST(ModelPathTest, NamesWeightsInFormatsThatAreNotRead) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  std::filesystem::remove(directory.Path("model.safetensors"));
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("neither model.safetensors nor"));
  directory.Write("consolidated.safetensors", "");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("but consolidated.safetensors"));
  directory.Write("model-q4.gguf", "");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("only as GGUF files: name one of them, model-"));
  directory.Write("pytorch_model.bin", "");
  directory.Write("training_args.bin", "");
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("weights only as pickles (pytorch_model.bin), which can run code"));
  EXPECT_THAT(ErrorOf(directory.Path("pytorch_model.bin")), HasSubstr("a pickle, which can run"));
  EXPECT_THAT(ErrorOf(directory.Path("config.json")), HasSubstr("name the folder"));
}

TEST(ModelPathTest, NamesALinkToNothing) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  std::filesystem::remove(directory.Path("model.safetensors"));
  std::filesystem::create_symlink("../../blobs/5e", directory.Path("model.safetensors"));
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("/model.safetensors: a link to a file that is not there"));
}

TEST(ModelPathTest, AnUnsupportedArchitectureIsNamedBeforeWhatFollowsFromIt) {
  const TempDirectory directory;  // Nothing else is there.
  const auto error = [&directory](std::string_view architecture, std::string_view type) {
    directory.Write(
        "config.json",
        nlohmann::json({{"architectures", {architecture}}, {"model_type", type}}).dump());
    return ErrorOf(directory.path());
  };
  struct Case {
    std::string_view architecture;
    std::string_view type;
    std::string reason;
  };
  const Case cases[] = {
      {"SmolLM3ForCausalLM", "smollm3", "no rotary embedding"},
      {"GraniteForCausalLM", "granite", "multipliers"},
      {"Phi3ForCausalLM", "phi3", "one tensor each"},
      {"InternLM2ForCausalLM", "internlm2", "are one tensor"},
      {"Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", "images"},
      {"Llama4ForConditionalGeneration", "llama4", "chunked attention"},
      {"MllamaForConditionalGeneration", "mllama", "attend to images"},
      {"LlamaForSequenceClassification", "llama", "a classifier"},
      {"Qwen3ForTokenClassification", "qwen3", "a classifier"},
      {"Qwen3Model", "qwen3", "without an output layer"},
  };
  for (const Case& refused : cases) {
    EXPECT_THAT(error(refused.architecture, refused.type),
                AllOf(HasSubstr(directory.Path("config.json") + ": architecture '" +
                                std::string(refused.architecture) + "'"),
                      HasSubstr(refused.reason), HasSubstr("supported are LlamaForCausalLM")));
  }
  EXPECT_THAT(error("GemmaForCausalLM", "gemma"), HasSubstr("of model_type 'gemma': supported"));
}

TEST(ModelPathTest, NamesWeightsOfMlx) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  nlohmann::json config = TinyConfig();
  config["quantization"] = {{"group_size", 64}, {"bits", 4}};
  directory.Write("config.json", config.dump());
  EXPECT_THAT(ErrorOf(directory.path()),
              AllOf(HasSubstr("config.json: quantization"), HasSubstr("MLX")));
}

TEST(ModelPathTest, AFolderWithOneGgufModelIsThatModel) {
  const TempDirectory directory;
  directory.Write("m.gguf", TinyGguf().Bytes());
  EXPECT_TRUE(Checkpoint::Open(directory.path()).ok());
  directory.Write("n.gguf", TinyGguf().Bytes());
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("a folder of 2 GGUF models: name one of its files, m.gguf, n.gguf"));
}

}  // namespace
}  // namespace structattn
