// Opens one or many safetensors files and looks tensors up in them: see safetensors_folder.h.
#include "server/model/safetensors_folder.h"

#include <map>
#include <utility>

#include "server/model/mapped_file.h"
#include "server/model/model_path.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"
#include "server/model/strict_json.h"

namespace structattn {
namespace {

using Shard = SafetensorsFolder::Shard;
using Shards = std::vector<std::unique_ptr<Shard>>;

constexpr size_t kLargestIndexBytes = size_t{1} << 24;
constexpr size_t kMostShards = 1024;
constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

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

absl::StatusOr<Shards> OpenIndexed(const std::string& directory) {
  const std::string index_path = Concat(directory, "/", kIndexFile);
  const absl::StatusOr<std::string> text = ReadSmallFile(index_path, kLargestIndexBytes);
  if (absl::IsNotFound(text.status())) return NoSafetensors(directory);
  if (!text.ok()) return text.status();
  const absl::StatusOr<WeightMap> map = ParseIndex(*text);
  if (!map.ok()) return WithPrefix(index_path, map.status());
  std::map<std::string, const Shard*> by_name;
  Shards shards;
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

absl::StatusOr<Shards> OpenShards(const std::string& directory) {
  std::string path = Concat(directory, "/", kSingleFile);
  absl::StatusOr<SafetensorsFile> single = SafetensorsFile::Open(path);
  if (single.ok()) {
    Shards shards;
    shards.push_back(std::make_unique<Shard>(Shard{std::move(path), *std::move(single)}));
    return shards;
  }
  if (!absl::IsNotFound(single.status())) return single.status();
  return OpenIndexed(directory);
}

}  // namespace

std::string SafetensorsFolder::Found::place() const {
  return Concat(shard->path, ": ", Quoted(name));
}

absl::StatusOr<SafetensorsFolder> SafetensorsFolder::Open(const std::string& directory) {
  STRUCTATTN_ASSIGN_OR_RETURN(Shards shards, OpenShards(directory));
  return SafetensorsFolder(std::move(shards));
}

bool SafetensorsFolder::Has(std::string_view name) const {
  for (const auto& shard : shards_) {
    if (shard->file.tensors().contains(name)) return true;
  }
  return false;
}

absl::StatusOr<SafetensorsFolder::Found> SafetensorsFolder::Find(
    std::span<const std::string> names) const {
  for (const std::string& name : names) {
    Found found;
    for (const auto& shard : shards_) {
      const auto entry = shard->file.tensors().find(name);
      if (entry == shard->file.tensors().end()) continue;
      if (found.shard != nullptr) {
        return Refuse(shard->path, ": ", Quoted(name), ": tensor is in ", found.shard->path,
                      " too");
      }
      found = {shard.get(), &entry->second, entry->first};
    }
    if (found.shard != nullptr) return found;
  }
  return Refuse(shards_.front()->path, shards_.size() > 1 ? " and its further shards" : "", ": ",
                Quoted(names.front()), ": tensor is missing");
}

}  // namespace structattn
