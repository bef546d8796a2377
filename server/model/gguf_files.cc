// Opens the files of a GGUF model and puts their tensors together: see gguf_files.h.
#include "server/model/gguf_files.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "server/model/refusal.h"
#include "server/model/sha256.h"
#include "server/model/status_macros.h"

namespace structattn {
namespace {

constexpr size_t kDigits = 5;  // Of a part's number in its name.

// What a part says of the split in its metadata, and by its name.
absl::Status CheckPart(const Gguf& gguf, const GgufPart& part) {
  std::optional<int64_t> count;
  std::optional<int64_t> index;  // From 0.
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("split.count", count));
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("split.no", index));
  if (count.value_or(1) == part.count && index.value_or(0) == part.number - 1) {
    return absl::OkStatus();
  }
  const GgufPart own{.stem = {}, .number = 0, .count = count.value_or(1)};
  return Refuse("part ", index.value_or(0) + 1, " of ", own.count,
                " by its metadata (split.no, split.count): its name must end in ",
                own.PathOf(index.value_or(0) + 1));
}

absl::Status CheckTensorCount(const Gguf& gguf) {
  std::optional<int64_t> count;
  STRUCTATTN_RETURN_IF_ERROR(gguf.Read("split.tensors.count", count));
  const auto found = static_cast<int64_t>(gguf.tensors().size());
  if (!count || *count == found) return absl::OkStatus();
  return Refuse("split.tensors.count ", *count, ": the parts hold ", found, " tensors");
}

// Opens `path` and adds its tensors; the first file brings the metadata, too.
absl::Status AddFile(const std::string& path, const GgufPart& part, Sha256& hash,
                     GgufFiles& opened) {
  STRUCTATTN_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  STRUCTATTN_ASSIGN_OR_RETURN(Gguf gguf, Gguf::Parse(file.bytes()));
  STRUCTATTN_RETURN_IF_ERROR(CheckPart(gguf, part));
  hash.Update(Concat("gguf ", gguf.data_begin(), " ", file.size(), "\n"));
  hash.Update(file.bytes().substr(0, gguf.data_begin()));
  opened.files.push_back(std::move(file));
  if (part.number == 1) {
    opened.gguf = std::move(gguf);
    return absl::OkStatus();
  }
  return opened.gguf.AddTensors(gguf);
}

}  // namespace

std::string GgufPart::PathOf(int64_t other) const {
  return absl::StrFormat("%s-%05d-of-%05d.gguf", std::string(stem), other, count);
}

std::optional<GgufPart> ParseGgufPart(std::string_view path) {
  constexpr std::string_view kForm = "-00001-of-00002.gguf";
  if (path.size() < kForm.size()) return std::nullopt;
  GgufPart part{.stem = path.substr(0, path.size() - kForm.size()), .number = 0, .count = 0};
  const std::string_view form = path.substr(part.stem.size());
  const std::string number(form.substr(1, kDigits));
  const std::string count(form.substr(kForm.find("00002"), kDigits));
  const auto is_digits = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!is_digits(number) || !is_digits(count)) return std::nullopt;
  if (form != Concat("-", number, "-of-", count, ".gguf")) return std::nullopt;
  if (!absl::SimpleAtoi(number, &part.number) || !absl::SimpleAtoi(count, &part.count)) {
    return std::nullopt;
  }
  if (part.number < 1 || part.number > part.count) return std::nullopt;
  return part;
}

absl::StatusOr<GgufFiles> OpenGgufFiles(const std::string& path) {
  const std::optional<GgufPart> named = ParseGgufPart(path);
  if (named && named->number != 1) {
    return Refuse(path, ": part ", named->number, " of ", named->count, ": name the first one, ",
                  named->PathOf(1));
  }
  const int64_t count = named ? named->count : 1;
  GgufFiles opened;
  Sha256 hash;
  for (int64_t number = 1; number <= count; ++number) {
    const std::string part_path = named ? named->PathOf(number) : path;
    const GgufPart part{.stem = {}, .number = number, .count = count};
    const absl::Status added = AddFile(part_path, part, hash, opened);
    if (absl::IsNotFound(added)) {
      return Refuse(part_path, ": part ", number, " of ", count, " is missing");
    }
    // The messages about a file that cannot be opened begin with it already.
    if (!added.ok()) {
      return absl::StartsWith(added.message(), part_path) ? added : WithPrefix(part_path, added);
    }
  }
  if (absl::Status status = CheckTensorCount(opened.gguf); !status.ok()) {
    return WithPrefix(path, status);
  }
  opened.digest = hash.Hex();
  return opened;
}

}  // namespace structattn
