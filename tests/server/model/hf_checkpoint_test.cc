// Hugging Face directories: what is read from sound ones, and that broken ones are refused quickly
// with file, tensor and reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

ModelConfig TinyModelConfig() { return *ParseModelConfig(TinyConfig().dump(), ""); }

std::string ErrorOf(const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  const auto checkpoint = Checkpoint::Open(path);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  return std::string(checkpoint.status().message());
}

void ExpectTinyValues(const Checkpoint& checkpoint, DType dtype) {
  for (const TensorSpec& spec : ExpectedTensors(checkpoint.config())) {
    const LoadedMatrix matrix = checkpoint.Read(spec.name);
    ASSERT_EQ(matrix.view.rows, spec.rows) << spec.name;
    ASSERT_EQ(matrix.view.columns, spec.columns) << spec.name;
    ASSERT_EQ(matrix.view.dtype, dtype) << spec.name;
    const std::string_view name = dtype == DType::kFloat32    ? "F32"
                                  : dtype == DType::kBfloat16 ? "BF16"
                                                              : "F16";
    const std::string expected = TinyBytes(spec.name, name, spec.rows * spec.columns);
    EXPECT_EQ(std::memcmp(matrix.view.data, expected.data(), expected.size()), 0) << spec.name;
  }
}

// Writes the tensors into two shards and an index, which it returns.
Json WriteShards(const TempDirectory& directory, const std::vector<FileTensor>& tensors) {
  std::filesystem::remove(directory.Path("model.safetensors"));
  Json map;
  std::vector<FileTensor> halves[2];
  for (size_t i = 0; i < tensors.size(); ++i) {
    halves[i % 2].push_back(tensors[i]);
    map[tensors[i].name] = i % 2 == 0 ? "one.safetensors" : "two.safetensors";
  }
  directory.Write("one.safetensors", SafetensorsBytes(halves[0]));
  directory.Write("two.safetensors", SafetensorsBytes(halves[1]));
  const Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", map}};
  directory.Write("model.safetensors.index.json", index.dump());
  return index;
}

TEST(HfCheckpointTest, ReadsEveryDType) {
  for (const auto& [name, dtype] :
       {std::pair{"F32", DType::kFloat32}, {"BF16", DType::kBfloat16}, {"F16", DType::kFloat16}}) {
    const TempDirectory directory;
    WriteTinyModel(directory);
    directory.Write("model.safetensors", SafetensorsBytes(TinyTensors(TinyModelConfig(), name)));
    const auto checkpoint = Checkpoint::Open(directory.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ExpectTinyValues(**checkpoint, dtype);
    EXPECT_NE((*checkpoint)->TakeTokenizer(), nullptr);
    EXPECT_EQ((*checkpoint)->config().dtype, DType::kFloat32) << "config.json says so";
  }
}

TEST(HfCheckpointTest, CountsParametersAndBytes) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  // Embedding and head; per layer q and o, k and v, the MLP's three, two norms; the last norm.
  const int64_t layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32;
  EXPECT_EQ((*checkpoint)->parameters(), 2 * 272 * 32 + 2 * layer + 32);
}

TEST(HfCheckpointTest, TheStoredTensorsDecideTheDTypeThatTheConfigDoesNotName) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  Json config = TinyConfig();
  config.erase("torch_dtype");
  directory.Write("config.json", config.dump());
  directory.Write("model.safetensors", SafetensorsBytes(TinyTensors(TinyModelConfig(), "F16")));
  EXPECT_EQ((*Checkpoint::Open(directory.path()))->config().dtype, DType::kFloat16);
}

TEST(HfCheckpointTest, ReadsShardsBehindSymbolicLinks) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  WriteShards(directory, TinyTensors(TinyModelConfig(), "F32"));
  const TempDirectory blobs;
  std::filesystem::rename(directory.Path("one.safetensors"), blobs.Path("one"));
  std::filesystem::create_symlink(blobs.Path("one"), directory.Path("one.safetensors"));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectTinyValues(**checkpoint, DType::kFloat32);
}

TEST(HfCheckpointTest, CopiesTensorsThatAreNotAligned) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  std::vector<FileTensor> tensors = TinyTensors(TinyModelConfig(), "F32");
  tensors.insert(tensors.begin(), {"odd", "U8", {1}, "x"});
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectTinyValues(**checkpoint, DType::kFloat32);
  EXPECT_NE((*checkpoint)->Read("model.norm.weight").owned, nullptr);
}

// The config of the tiny model with `changes`, and its tensors without lm_head.weight where the
// changes tie the embeddings.
std::vector<FileTensor> WriteConfig(const TempDirectory& directory, const Json& changes) {
  WriteTinyModel(directory);
  Json config = TinyConfig();
  config.update(changes);
  directory.Write("config.json", config.dump());
  return TinyTensors(*ParseModelConfig(config.dump(), ""), "F32");
}

TEST(HfCheckpointTest, IgnoresWhatTheConfigDoesNotAskFor) {
  const TempDirectory directory;
  std::vector<FileTensor> tensors = WriteConfig(directory, {{"tie_word_embeddings", true}});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F64", {1}, "12345678"});
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectTinyValues(**checkpoint, DType::kFloat32);
  EXPECT_DEATH((*checkpoint)->Read("lm_head.weight"), "broken invariant");
}

// transformers 5.23, PreTrainedModel.tie_weights: "both are present in the checkpoints with
// different values, so we will NOT tie them".
TEST(HfCheckpointTest, AStoredHeadIsUsedWhateverTheConfigSaysOfTies) {
  const TempDirectory directory;
  WriteConfig(directory, {{"tie_word_embeddings", true}});  // lm_head.weight stays in the file.
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE((*checkpoint)->config().tied_embeddings);
  ExpectTinyValues(**checkpoint, DType::kFloat32);
  EXPECT_EQ(ExpectedTensors((*checkpoint)->config()).back().name, "lm_head.weight");
}

// The same function: "we're missing the source but we have the target -> we swap them".
TEST(HfCheckpointTest, AHeadAloneIsTheEmbeddingTooWhereTheConfigTiesThem) {
  const TempDirectory directory;
  std::vector<FileTensor> tensors = WriteConfig(directory, {{"tie_word_embeddings", true}});
  const std::string bytes = TinyBytes("lm_head.weight", "F32", 272 * 32);
  ASSERT_EQ(tensors[0].name, "model.embed_tokens.weight");
  tensors[0].name = "lm_head.weight";
  tensors[0].bytes = bytes;
  directory.Write("model.safetensors", SafetensorsBytes(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->config().tied_embeddings);
  const LoadedMatrix table = (*checkpoint)->Read("model.embed_tokens.weight");
  EXPECT_EQ(std::memcmp(table.view.data, bytes.data(), bytes.size()), 0);

  directory.Write("config.json", TinyConfig().dump());  // Not tied: transformers draws a table.
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("'model.embed_tokens.weight': tensor is miss"));
}

TEST(HfCheckpointTest, ReadsTensorsWithoutThePrefixOfTheBaseModel) {
  for (const bool tied : {false, true}) {
    const TempDirectory directory;
    std::vector<FileTensor> tensors = WriteConfig(directory, {{"tie_word_embeddings", tied}});
    for (FileTensor& tensor : tensors) {
      if (tensor.name.starts_with("model.")) tensor.name.erase(0, 6);
    }
    directory.Write("model.safetensors", SafetensorsBytes(tensors));
    const auto checkpoint = Checkpoint::Open(directory.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->config().tied_embeddings, tied);
    ExpectTinyValues(**checkpoint, DType::kFloat32);
    EXPECT_EQ((*checkpoint)->Read("model.norm.weight").view.columns, 32);
  }
}

TEST(HfCheckpointTest, TheDigestFollowsEveryFile) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  const auto digest = [&directory] { return (*Checkpoint::Open(directory.path()))->digest(); };
  std::set<std::string> seen = {digest()};
  EXPECT_EQ(seen.begin()->size(), 64u);
  EXPECT_EQ(digest(), *seen.begin()) << "the same files, the same digest";
  directory.Write("generation_config.json", R"({"eos_token_id": 3})");
  EXPECT_TRUE(seen.insert(digest()).second);
  directory.Write("tokenizer.json", TinyTokenizer() + " ");
  EXPECT_TRUE(seen.insert(digest()).second);
  directory.Write("config.json", TinyConfig().dump() + " ");
  EXPECT_TRUE(seen.insert(digest()).second);
  directory.Write("model.safetensors", SafetensorsBytes(TinyTensors(TinyModelConfig(), "F16")));
  EXPECT_TRUE(seen.insert(digest()).second);
}

TEST(HfCheckpointTest, RefusesBrokenTensorFiles) {
  using Change = std::function<std::string(std::vector<FileTensor>)>;
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const auto with = [&q](std::function<void(FileTensor&)> change) -> Change {
    return [change, &q](std::vector<FileTensor> tensors) {
      for (FileTensor& tensor : tensors) {
        if (tensor.name == q) change(tensor);
      }
      return SafetensorsBytes(tensors);
    };
  };
  const auto without_bytes = [](size_t count) -> Change {
    return [count](const std::vector<FileTensor>& tensors) {
      const std::string file = SafetensorsBytes(tensors);
      return file.substr(0, file.size() - count);
    };
  };
  struct Case {
    Change change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {with([](auto& t) { t.name = "other"; }), "'" + q + "': tensor is missing"},
      {with([](auto& t) {
         t.shape = {16, 64};
       }),
       "'" + q + "': shape [16, 64], the config asks for [32, 32]"},
      {with([](auto& t) { t.shape = {1024}; }), "'" + q + "': shape [1024], the config asks for"},
      {with([](auto& t) { t.dtype = "I32"; }), "'" + q + "': dtype I32: supported are F32"},
      {with([](auto& t) { t.dtype = "F33"; }), "'" + q + "': unknown dtype 'F33'"},
      {with([](auto& t) { t.dtype = "F16"; }), "'" + q + "': type and shape need 2048 bytes"},
      {without_bytes(1), "its data ends at byte"},
      {without_bytes(40000), "its data ends at byte"},
      {[](const auto& tensors) { return SafetensorsBytes(tensors) + "x"; }, "the tensors end at"},
      {[](const auto&) { return std::string(); }, "empty file"},
      {[](const auto&) { return BytesOf(uint64_t{1} << 62) + "{}"; }, "header of"},
  };
  for (const Case& broken : cases) {
    const TempDirectory directory;
    WriteTinyModel(directory);
    directory.Write("model.safetensors", broken.change(TinyTensors(TinyModelConfig(), "F32")));
    EXPECT_THAT(ErrorOf(directory.path()),
                AllOf(HasSubstr("/model.safetensors"), HasSubstr(broken.message)));
  }
}

TEST(HfCheckpointTest, RefusesBrokenIndexes) {
  const std::string norm = "model.norm.weight";
  struct Case {
    std::function<void(const TempDirectory&, Json&)> change;
    std::string message;
  };
  const auto name = [&norm](std::string_view shard) {
    return [shard, &norm](const TempDirectory&, Json& index) { index["weight_map"][norm] = shard; };
  };
  const std::vector<Case> cases = {
      {name("../one.safetensors"), "shard '../one.safetensors': allowed are names"},
      {name("/etc/one.safetensors"), "shard '/etc/one.safetensors': allowed"},
      {name("..safetensors"), "shard '..safetensors': allowed"},
      {name("sub/one.safetensors"), "allowed are names"},
      {name(std::string_view("a\0.safetensors", 14)), "allowed are names"},
      {name("model.safetensors.index.json"), "allowed are names of files"},
      {name(""), "shard '': allowed"},
      {name("three.safetensors"), "three.safetensors: No such file"},
      {name("one.safetensors"), "one.safetensors: 'model.norm.weight': tensor is missing, model"},
      {[](const auto& directory, Json& index) {
         std::filesystem::create_symlink("c.safetensors", directory.Path("c.safetensors"));
         index["weight_map"]["model.norm.weight"] = "c.safetensors";
       },
       "c.safetensors: Too many levels of symbolic links"},
      {[](const auto&, Json& index) { index["weight_map"]["extra"] = "one.safetensors"; },
       "one.safetensors: 'extra': tensor is missing"},
      {[](const auto&, Json& index) { index["weight_map"]["extra"] = 3; }, "is not a string"},
      {[](const auto&, Json& index) { index.erase("weight_map"); }, "'weight_map' is missing"},
      {[](const auto&, Json& index) { index["weight_map"] = Json::object(); }, "is missing, empty"},
      {[](const auto& directory, Json&) {
         directory.Write("two.safetensors",
                         SafetensorsBytes(TinyTensors(TinyModelConfig(), "F32")));
       },
       "two.safetensors: 'model.embed_tokens.weight': tensor is in "},
  };
  for (const Case& broken : cases) {
    const TempDirectory directory;
    WriteTinyModel(directory);
    std::vector<FileTensor> tensors = TinyTensors(TinyModelConfig(), "F32");
    std::swap(tensors[1], *std::find_if(tensors.begin(), tensors.end(), [&norm](const auto& t) {
                return t.name == norm;  // Into the second shard.
              }));
    Json index = WriteShards(directory, tensors);
    broken.change(directory, index);
    directory.Write("model.safetensors.index.json", index.dump());
    EXPECT_THAT(ErrorOf(directory.path()), HasSubstr(broken.message));
  }
}

TEST(HfCheckpointTest, RefusesAnIndexWithEqualKeys) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  WriteShards(directory, TinyTensors(TinyModelConfig(), "F32"));
  directory.Write("model.safetensors.index.json",
                  R"({"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}})");
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("model.safetensors.index.json: key 'a' appears twice"));
}

TEST(HfCheckpointTest, NamesTheFileThatIsMissingOrBroken) {
  const TempDirectory empty;
  EXPECT_THAT(ErrorOf(empty.path()), HasSubstr("/config.json: No such file"));
  EXPECT_THAT(ErrorOf(empty.Path("nothing")), HasSubstr("no such model file or directory"));
  {
    const TempDirectory directory;
    WriteTinyModel(directory);
    std::filesystem::remove(directory.Path("model.safetensors"));
    EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("neither model.safetensors nor"));
    WriteTinyModel(directory);
    std::filesystem::remove(directory.Path("tokenizer.json"));
    EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("/tokenizer.json: No such file"));
  }
  const TempDirectory directory;
  WriteTinyModel(directory);
  directory.Write("tokenizer.json", "[]");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("/tokenizer.json: "));
  directory.Write("config.json", R"({"model_type": "gemma"})");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("/config.json: architecture"));
  WriteTinyModel(directory);
  directory.Write("generation_config.json", "{");
  EXPECT_THAT(ErrorOf(directory.path()), HasSubstr("/generation_config.json: not valid JSON"));
}

TEST(HfCheckpointTest, RefusesAVocabularyThatDoesNotFit) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  Json config = TinyConfig();
  config["vocab_size"] = 271;
  directory.Write("config.json", config.dump());
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("'model.embed_tokens.weight': shape [272, 32], the config asks for [271"));
  config["vocab_size"] = 255;
  config["eos_token_id"] = 0;
  directory.Write("config.json", config.dump());
  directory.Write("model.safetensors",
                  SafetensorsBytes(TinyTensors(*ParseModelConfig(config.dump(), ""), "F32")));
  EXPECT_THAT(ErrorOf(directory.path()),
              HasSubstr("/tokenizer.json: 256 token ids, the model embeds only 255"));
}

// As the <pad> that fine-tuned folders add without a row of the embedding for it.
TEST(HfCheckpointTest, AnAddedTokenMayLieBeyondTheEmbedding) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  Json config = TinyConfig();
  config["vocab_size"] = 256;
  config["eos_token_id"] = 0;
  directory.Write("config.json", config.dump());
  directory.Write("model.safetensors",
                  SafetensorsBytes(TinyTensors(*ParseModelConfig(config.dump(), ""), "F32")));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->TakeTokenizer()->FindToken("<|endoftext|>"), 256);
}

TEST(HfCheckpointTest, RefusesSpecialTokensBeyondTheEmbedding) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  Json tokenizer = Json::parse(TinyTokenizer());
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", Json::array()},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {4000000}}, {"tokens", {"<s>"}}}}}}};
  directory.Write("tokenizer.json", tokenizer.dump());
  EXPECT_THAT(
      ErrorOf(directory.path()),
      HasSubstr("/tokenizer.json: the special token id 4000000 around a prompt: the model embeds"));
}

}  // namespace
}  // namespace structattn
