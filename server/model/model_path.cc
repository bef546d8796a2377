// See model_path.h.
#include "server/model/model_path.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"
#include "server/model/gguf_files.h"
#include "server/model/json_fields.h"
#include "server/model/mapped_file.h"
#include "server/model/refusal.h"
#include "server/model/status_macros.h"
#include "server/model/strict_json.h"

namespace structattn {
namespace {

constexpr size_t kLargestTextBytes = size_t{1} << 20;
constexpr size_t kMostNamed = 8;

bool Exists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool EndsInOneOf(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [name](std::string_view end) { return name.ends_with(end); });
}

// Python's pickles, which can run code when they are read.
bool IsPickle(std::string_view name) { return EndsInOneOf(name, {".bin", ".pth", ".pt", ".ckpt"}); }
bool IsGguf(std::string_view name) { return name.ends_with(".gguf"); }

// The names in a folder that pass, in order.
std::vector<std::string> NamesIn(const std::string& folder,
                                 const std::function<bool(std::string_view)>& passes) {
  std::vector<std::string> names;
  std::error_code error;
  using Iterator = std::filesystem::directory_iterator;
  for (Iterator entry(folder, error); !error && entry != Iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (passes(name)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// For a message: "a, b" or "a, b and 17 more".
std::string Listed(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMostNamed);
  std::string list =
      absl::StrJoin(names.begin(), names.begin() + static_cast<int64_t>(shown), ", ",
                    [](std::string* out, const std::string& name) { out->append(Escaped(name)); });
  if (shown < names.size()) list += Concat(" and ", names.size() - shown, " more");
  return list;
}

// The model that an adapter belongs to, by its config; empty where it does not say.
std::string BaseModelOf(const std::string& adapter_config) {
  std::string base;
  const absl::StatusOr<std::string> text = ReadSmallFile(adapter_config, kLargestTextBytes);
  if (!text.ok()) return base;
  const absl::StatusOr<Json> object = ParseJsonObject(*text);
  if (object.ok() && Fields(*object).Read("base_model_name_or_path", base).ok()) return base;
  return "";
}

absl::Status RefuseAdapter(const std::string& folder) {
  const std::string base = BaseModelOf(folder + "/adapter_config.json");
  return Refuse(folder, ": an adapter (adapter_config.json)",
                base.empty() ? "" : Concat(" of ", Quoted(base)),
                ", not a model: serve the model that it adapts");
}

// models--ORG--NAME of Hugging Face's cache: the models lie one folder per revision below it.
absl::Status RefuseCacheFolder(const std::string& folder) {
  const std::string snapshots = folder + "/snapshots";
  std::vector<std::string> revisions = NamesIn(
      snapshots, [&](std::string_view name) { return IsFolder(Concat(snapshots, "/", name)); });
  const absl::StatusOr<std::string> main = ReadSmallFile(folder + "/refs/main", kLargestTextBytes);
  if (main.ok() && std::find(revisions.begin(), revisions.end(), *main) != revisions.end()) {
    revisions = {*main};
  }
  if (revisions.empty()) {
    return Refuse(folder, ": the top of a Hugging Face cache folder, without a revision below ",
                  snapshots);
  }
  for (std::string& revision : revisions) revision = Concat(snapshots, "/", revision);
  return Refuse(folder, ": the top of a Hugging Face cache folder: name the revision below it, ",
                Listed(revisions));
}

// The GGUF model in a folder: a file, or the first part of a split one.
absl::StatusOr<ModelPath> OnlyGguf(const std::string& folder, std::vector<std::string> names) {
  std::erase_if(names, [](const std::string& name) {
    const std::optional<GgufPart> part = ParseGgufPart(name);
    return part && part->number != 1;
  });
  if (names.size() == 1) return ModelPath{.is_folder = false, .path = folder + "/" + names.front()};
  if (names.empty()) return Refuse(folder, ": a split GGUF model without its first part");
  return Refuse(folder, ": a folder of ", names.size(), " GGUF models: name one of its files, ",
                Listed(names));
}

absl::StatusOr<ModelPath> ResolveFolder(const std::string& path) {
  if (Exists(path + "/config.json")) return ModelPath{.is_folder = true, .path = path};
  if (Exists(path + "/adapter_config.json")) return RefuseAdapter(path);
  if (IsFolder(path + "/snapshots")) return RefuseCacheFolder(path);
  const std::vector<std::string> gguf = NamesIn(path, IsGguf);
  if (!gguf.empty()) return OnlyGguf(path, gguf);
  const std::vector<std::string> pickles = NamesIn(path, IsPickle);
  if (!pickles.empty()) {
    return Refuse(path, ": no config.json, but ", Listed(pickles),
                  ": supported are Hugging Face folders and GGUF files");
  }
  return ModelPath{.is_folder = true, .path = path};  // Whose config.json will be missed.
}

}  // namespace

absl::StatusOr<ModelPath> ResolveModelPath(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("a path must not hold a NUL character");
  }
  if (IsFolder(path)) return ResolveFolder(path);
  if (!Exists(path)) {
    return absl::NotFoundError(Concat(path, ": no such model file or directory"));
  }
  if (EndsInOneOf(path, {".safetensors", ".json"})) {
    return Refuse(path, ": a file of a Hugging Face folder: name the folder");
  }
  if (IsPickle(path)) {
    return Refuse(path,
                  ": a pickle, which can run code when it is read: supported are Hugging Face ",
                  "folders with safetensors files, and GGUF files");
  }
  return ModelPath{.is_folder = false, .path = path};
}

absl::Status NoSafetensors(const std::string& folder) {
  const std::vector<std::string> pickles = NamesIn(folder, [](std::string_view name) {
    return IsPickle(name) && name != "training_args.bin" && name != "optimizer.pt";
  });
  if (!pickles.empty()) {
    return Refuse(folder, ": weights only as pickles (", Listed(pickles),
                  "), which can run code when they are read: load and save the model with "
                  "transformers, which writes safetensors files");
  }
  const std::vector<std::string> gguf = NamesIn(folder, IsGguf);
  if (!gguf.empty()) {
    return Refuse(folder, ": weights only as GGUF files: name one of them, ", Listed(gguf));
  }
  if (Exists(folder + "/adapter_config.json")) return RefuseAdapter(folder);
  const std::vector<std::string> others =
      NamesIn(folder, [](std::string_view name) { return name.ends_with(".safetensors"); });
  return absl::NotFoundError(
      Concat(folder, ": neither model.safetensors nor model.safetensors.index.json is there",
             others.empty() ? " (other formats are not read)"
                            : Concat(", but ", Listed(others), " of another layout")));
}

}  // namespace structattn
