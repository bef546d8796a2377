// Opens config.json, generation_config.json, tokenizer.json and one or many safetensors files, and
// checks them against each other: see hf_checkpoint.h and checkpoint.h.
#include "server/model/hf_checkpoint.h"

#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "server/model/mapped_file.h"
#include "server/model/plain_tensor.h"
#include "server/model/refusal.h"
#include "server/model/safetensors.h"
#include "server/model/sha256.h"
#include "server/model/status_macros.h"
#include "server/model/strict_json.h"
#include "server/model/tensor_table.h"

namespace structattn {
namespace {

constexpr size_t kLargestConfigBytes = size_t{1} << 20;
constexpr size_t kLargestIndexBytes = size_t{1} << 24;
constexpr size_t kLargestTokenizerBytes = size_t{1} << 27;
constexpr size_t kMostShards = 1024;
constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// The text files of a directory.
struct Texts {
  std::string config;
  std::string generation_config;  // Empty: there is none.
  std::string tokenizer;
};

// One safetensors file of the directory.
struct Shard {
  std::string path;
  SafetensorsFile file;
};

struct LocatedTensor {
  TensorSpec spec;
  const Shard* shard;
  const StoredTensor* stored;
};

class HfCheckpoint final : public Checkpoint {
 public:
  HfCheckpoint(ModelConfig config, std::vector<std::unique_ptr<Shard>> shards)
      : config_(std::move(config)), shards_(std::move(shards)) {}

  // Finds every expected tensor and fills in the dtype where the config names none.
  absl::Status Locate();
  absl::Status AddTokenizer(std::string_view json, const std::string& path);
  void MakeDigest(const Texts& texts);

  const ModelConfig& config() const override { return config_; }
  std::unique_ptr<Tokenizer> TakeTokenizer() override { return std::move(tokenizer_); }
  const std::string& digest() const override { return digest_; }
  int64_t parameters() const override { return parameters_; }

 private:
  LoadedMatrix ReadTensor(std::string_view name, ThreadPool* pool) const override;
  absl::StatusOr<const Shard*> FindShard(const std::string& name) const;

  ModelConfig config_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::map<std::string, LocatedTensor, std::less<>> located_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string digest_;
  int64_t parameters_ = 0;
};

absl::StatusOr<const Shard*> HfCheckpoint::FindShard(const std::string& name) const {
  const Shard* found = nullptr;
  for (const auto& shard : shards_) {
    if (!shard->file.tensors().contains(name)) continue;
    if (found != nullptr) {
      return Refuse(shard->path, ": '", name, "': tensor is in ", found->path, " too");
    }
    found = shard.get();
  }
  if (found == nullptr) {
    return Refuse(shards_.front()->path, shards_.size() > 1 ? " and its further shards" : "", ": '",
                  name, "': tensor is missing");
  }
  return found;
}

absl::Status HfCheckpoint::Locate() {
  for (TensorSpec& spec : ExpectedTensors(config_)) {
    STRUCTATTN_ASSIGN_OR_RETURN(const Shard* shard, FindShard(spec.name));
    const StoredTensor& stored = shard->file.tensors().find(spec.name)->second;
    const std::string place = Concat(shard->path, ": '", spec.name, "'");
    const std::optional<DType> dtype = PlainDType(stored.dtype);
    if (!dtype) return Refuse(place, ": dtype ", stored.dtype, ": supported are F32, F16, BF16");
    if (absl::Status status = CheckShape(spec, stored.shape); !status.ok()) {
      return WithPrefix(place, status);
    }
    if (!std::exchange(config_.dtype_named, true)) config_.dtype = *dtype;
    parameters_ += spec.rows * spec.columns;
    std::string name = spec.name;
    located_.emplace(std::move(name), LocatedTensor{std::move(spec), shard, &stored});
  }
  return absl::OkStatus();
}

absl::Status HfCheckpoint::AddTokenizer(std::string_view json, const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer.ok()) return WithPrefix(path, tokenizer.status());
  tokenizer_ = *std::move(tokenizer);
  if (tokenizer_->vocabulary_size() > config_.vocab_size) {
    return Refuse(path, ": ", tokenizer_->vocabulary_size(), " token ids, the model embeds only ",
                  config_.vocab_size, " (model.embed_tokens.weight)");
  }
  for (const std::span<const int32_t> ids :
       {tokenizer_->special_prefix(), tokenizer_->special_suffix()}) {
    for (const int32_t id : ids) {
      if (id < config_.vocab_size) continue;
      return Refuse(path, ": post_processor: token id ", id, ", the model embeds only ",
                    config_.vocab_size, " (model.embed_tokens.weight)");
    }
  }
  return absl::OkStatus();
}

void HfCheckpoint::MakeDigest(const Texts& texts) {
  Sha256 hash;
  const auto add = [&hash](std::string_view label, std::string_view contents, size_t file_bytes) {
    hash.Update(Concat(label, " ", contents.size(), " ", file_bytes, "\n"));
    hash.Update(contents);
  };
  add("config", texts.config, texts.config.size());
  add("generation_config", texts.generation_config, texts.generation_config.size());
  add("tokenizer", texts.tokenizer, texts.tokenizer.size());
  for (const auto& shard : shards_) {
    add("safetensors", shard->file.header(), shard->file.file_bytes());
  }
  digest_ = hash.Hex();
}

LoadedMatrix HfCheckpoint::ReadTensor(std::string_view name, ThreadPool*) const {
  const auto found = located_.find(name);
  STRUCTATTN_CHECK(found != located_.end());
  const auto& [spec, shard, stored] = found->second;
  return ViewOrCopy(shard->file.Bytes(*stored), *PlainDType(stored->dtype), spec);
}

// A shard's name is a plain file name of this directory, whatever the index says.
absl::Status CheckShardName(std::string_view name) {
  if (name.find_first_of(std::string_view("/\\\0", 3)) != std::string_view::npos ||
      name.starts_with('.') || !name.ends_with(".safetensors")) {
    return Refuse("shard ", Quoted(name),
                  ": allowed are names of files in the same directory that end in .safetensors");
  }
  return absl::OkStatus();
}

// weight_map of the index: tensor name -> shard name.
using WeightMap = std::map<std::string, std::string>;

absl::StatusOr<WeightMap> ParseIndex(std::string_view text) {
  STRUCTATTN_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(text));
  const auto entries = index.find("weight_map");
  if (entries == index.end() || !entries->is_object() || entries->empty()) {
    return Refuse("'weight_map' is missing, empty or not an object");
  }
  WeightMap map;
  for (const auto& [tensor, shard] : entries->items()) {
    if (!shard.is_string()) return Refuse("shard of ", Quoted(tensor), " is not a string");
    const auto& name = shard.get_ref<const std::string&>();
    STRUCTATTN_RETURN_IF_ERROR(CheckShardName(name));
    map.emplace(tensor, name);
  }
  return map;
}

absl::StatusOr<std::vector<std::unique_ptr<Shard>>> OpenIndexed(const std::string& directory) {
  const std::string index_path = Concat(directory, "/", kIndexFile);
  const absl::StatusOr<std::string> text = ReadSmallFile(index_path, kLargestIndexBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(Concat(directory, ": neither ", kSingleFile, " nor ", kIndexFile,
                                      " is there (other formats are not read)"));
  }
  if (!text.ok()) return text.status();
  const absl::StatusOr<WeightMap> map = ParseIndex(*text);
  if (!map.ok()) return WithPrefix(index_path, map.status());
  std::map<std::string, const Shard*> by_name;
  std::vector<std::unique_ptr<Shard>> shards;
  for (const auto& [tensor, name] : *map) {
    const Shard*& shard = by_name[name];
    if (shard == nullptr) {
      if (shards.size() == kMostShards) {
        return Refuse(index_path, ": over ", kMostShards, " shards");
      }
      std::string path = Concat(directory, "/", name);
      absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
      if (!file.ok()) return file.status();
      shards.push_back(std::make_unique<Shard>(Shard{std::move(path), *std::move(file)}));
      shard = shards.back().get();
    }
    if (!shard->file.tensors().contains(tensor)) {
      return Refuse(shard->path, ": ", Quoted(tensor), ": tensor is missing, ", kIndexFile,
                    " says that it is here");
    }
  }
  return shards;
}

absl::StatusOr<std::vector<std::unique_ptr<Shard>>> OpenShards(const std::string& directory) {
  std::string path = Concat(directory, "/", kSingleFile);
  absl::StatusOr<SafetensorsFile> single = SafetensorsFile::Open(path);
  if (single.ok()) {
    std::vector<std::unique_ptr<Shard>> shards;
    shards.push_back(std::make_unique<Shard>(Shard{std::move(path), *std::move(single)}));
    return shards;
  }
  if (!absl::IsNotFound(single.status())) return single.status();
  return OpenIndexed(directory);
}

absl::StatusOr<Texts> ReadTexts(const std::string& directory) {
  Texts texts;
  STRUCTATTN_ASSIGN_OR_RETURN(texts.config,
                              ReadSmallFile(directory + "/config.json", kLargestConfigBytes));
  absl::StatusOr<std::string> generation =
      ReadSmallFile(directory + "/generation_config.json", kLargestConfigBytes);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  if (generation.ok()) texts.generation_config = *std::move(generation);
  STRUCTATTN_ASSIGN_OR_RETURN(texts.tokenizer,
                              ReadSmallFile(directory + "/tokenizer.json", kLargestTokenizerBytes));
  return texts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHfCheckpoint(const std::string& directory) {
  STRUCTATTN_ASSIGN_OR_RETURN(const Texts texts, ReadTexts(directory));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(texts.config, texts.generation_config);
  // The message begins with the file's name already.
  if (!config.ok()) {
    return absl::Status(config.status().code(), Concat(directory, "/", config.status().message()));
  }
  STRUCTATTN_ASSIGN_OR_RETURN(auto shards, OpenShards(directory));
  auto checkpoint = std::make_unique<HfCheckpoint>(*std::move(config), std::move(shards));
  STRUCTATTN_RETURN_IF_ERROR(checkpoint->Locate());
  STRUCTATTN_RETURN_IF_ERROR(
      checkpoint->AddTokenizer(texts.tokenizer, directory + "/tokenizer.json"));
  checkpoint->MakeDigest(texts);
  return checkpoint;
}

}  // namespace structattn
